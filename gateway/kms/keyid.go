package kms

import "strings"

// aliasOfService is the alias of the key that AWS keeps for the service. A
// keyring has a default key in its place.
const aliasOfService = "aws/kinesis"

// parseKeyID reads the four forms of a key's name: an id, "alias/NAME", and the
// ARNs of both. The region and the account of an ARN are not looked at: a keyring
// has neither.
func parseKeyID(text string) (name string, alias, ok bool) {
	name = text
	if rest, isARN := strings.CutPrefix(text, "arn:"); isARN {
		parts := strings.SplitN(rest, ":", 5) // partition, service, region, account, resource
		if len(parts) != 5 || parts[1] != "kms" {
			return "", false, false
		}
		name = parts[4]
		if id, isKey := strings.CutPrefix(name, "key/"); isKey {
			return id, false, keyIDPattern.MatchString(id)
		}
		if !strings.HasPrefix(name, "alias/") {
			return "", false, false
		}
	}
	if name, alias = strings.CutPrefix(name, "alias/"); alias {
		return name, true, aliasPattern.MatchString(name)
	}
	return name, false, keyIDPattern.MatchString(name)
}
