package kinesis

import "strings"

// Errors of authentication and authorization for which no recording of Kinesis
// is known. The texts of signatures are those of DynamoDB, whose front is the
// same; those of access that of IAM.

// BadSignatureDate answers a date that cannot be read.
func BadSignatureDate(date string) *Error {
	return newError(CodeIncompleteSignature, "Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", date)
}

// HostNotSigned answers a signature that leaves out where the request goes.
func HostNotSigned() *Error {
	return newError(CodeInvalidSignature, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
}

// UnsupportedAlgorithm answers a signature of another kind.
func UnsupportedAlgorithm(algorithm string) *Error {
	return newError(CodeIncompleteSignature, "Unsupported AWS 'algorithm': '%s' (only AWS4-HMAC-SHA256 for now). ", algorithm)
}

// MalformedCredential answers a credential that does not have its five parts.
func MalformedCredential(credential string) *Error {
	return newError(CodeIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", credential)
}

// ScopeFaults are the wrong parts of a credential's scope, as sent; "" for right
// ones.
type ScopeFaults struct{ Region, Service, Terminator, Day string }

// WrongScope answers a signature for another region, service or day. date is the
// request's time as the signature has it.
func WrongScope(f ScopeFaults, date string) *Error {
	var b strings.Builder
	if f.Region != "" {
		b.WriteString("Credential should be scoped to a valid region, not '" + f.Region + "'. ")
	}
	if f.Service != "" {
		b.WriteString("Credential should be scoped to correct service: 'kinesis'. ")
	}
	if f.Terminator != "" {
		b.WriteString("Credential should be scoped with a valid terminator: 'aws4_request', not '" + f.Terminator + "'. ")
	}
	if f.Day != "" {
		b.WriteString("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" +
			f.Day + "' != '" + date[:len("20060102")] + "', from '" + date + "'.")
	}
	return newError(CodeInvalidSignature, "%s", b.String())
}

// AccessDenied answers a call that nothing allows.
func AccessDenied(user string, op Op, resource string) *Error {
	return accessDenied(user, op, resource, "because no identity-based policy allows the kinesis:"+string(op)+" action")
}

// AccessNotShared answers a caller of another account, whom the resource's own
// policy does not let in.
func AccessNotShared(user string, op Op, resource string) *Error {
	return accessDenied(user, op, resource, "because no resource-based policy allows the kinesis:"+string(op)+" action")
}

// AccessForbidden answers a call that the resource's policy forbids.
func AccessForbidden(user string, op Op, resource string) *Error {
	return accessDenied(user, op, resource, "with an explicit deny in a resource-based policy")
}

func accessDenied(user string, op Op, resource, why string) *Error {
	return newError(CodeAccessDenied, "User: %s is not authorized to perform: kinesis:%s on resource: %s %s", user, op, resource, why)
}
