package conformance

import (
	"fmt"
	"strings"
)

// Section 3.8: resource policies.

// policyOf allows an account to do something with a resource.
func policyOf(arn, action string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"s","Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":%q,"Resource":%q}]}`, action, arn)
}

var policyRows = []row{
	{"3.8 policies/none", func(c *caller) {
		c.create(1)
		c.gives("GetResourcePolicy", m{"ResourceARN": "<ARN>"}, m{"Policy": "{}"})
		arn := c.consumer("c")
		c.gives("GetResourcePolicy", m{"ResourceARN": arn}, m{"Policy": "{}"})
	}},
	{"3.8 policies/put, replaced, deleted", func(c *caller) {
		c.create(1)
		consumer := c.consumer("c")
		for arn, actions := range map[string][2]string{
			c.arn(c.s): {"kinesis:GetRecords", "kinesis:PutRecord"},
			consumer:   {"kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"},
		} {
			for _, action := range actions {
				policy := policyOf(arn, action)
				c.empty("PutResourcePolicy", m{"ResourceARN": arn, "Policy": policy})
				c.gives("GetResourcePolicy", m{"ResourceARN": arn}, m{"Policy": policy})
			}
			c.empty("DeleteResourcePolicy", m{"ResourceARN": arn})
			c.gives("GetResourcePolicy", m{"ResourceARN": arn}, m{"Policy": "{}"})
		}
	}},
	{"3.8 policies/deleted without one", func(c *caller) {
		c.create(1)
		for _, arn := range []string{c.arn(c.s), c.consumer("c")} {
			c.refused("DeleteResourcePolicy", m{"ResourceARN": arn}, notFound, "No resource policy found for resource ARN "+arn+".")
		}
	}},
	{"3.8 policies/missing resource", func(c *caller) {
		c.create(1)
		for arn, text := range map[string]string{
			"<ARN>-b":                       "Stream <S>-b under account <A> not found.",
			"<ARN>/consumer/c:1700000000":   "Consumer <ARN>/consumer/c:1700000000, account <A> not found.",
			"<ARN>-b/consumer/c:1700000000": "Consumer <ARN>-b/consumer/c:1700000000, account <A> not found.",
		} {
			c.refused("PutResourcePolicy", m{"ResourceARN": arn, "Policy": policyOf(c.text(arn), "kinesis:GetRecords")}, notFound, text)
			c.refused("GetResourcePolicy", m{"ResourceARN": arn}, notFound, text)
			c.refused("DeleteResourcePolicy", m{"ResourceARN": arn}, notFound, text)
		}
	}},
	{"3.8 policies/not valid", func(c *caller) {
		c.create(1)
		for _, text := range []string{"", "x", `{"Version":`} {
			c.refusedLike("PutResourcePolicy", m{"ResourceARN": "<ARN>", "Policy": text}, invalidArgument, `The resource policy is not valid: not JSON: .+[^~]\.`)
		}
		good := policyOf(c.arn(c.s), "kinesis:GetRecords")
		for text, why := range map[string]string{
			`[]`:                       "must be a JSON object",
			`{"Version":"2012-10-17"}`: "the Statement is missing",
			`{"Version":"2012-10-17","Statement":[]}`:                  "the Statement is empty",
			strings.Replace(good, "2012-10-17", "2020-01-01", 1):       `the Version must be 2012-10-17, not "2020-01-01"`,
			strings.Replace(good, `"Allow"`, `"Maybe"`, 1):             `statement 1: the Effect must be Allow or Deny, not "Maybe"`,
			strings.Replace(good, `"111111111111"`, `"somebody"`, 1):   `statement 1: the Principal "somebody" is no account, no ARN and not *`,
			strings.Replace(good, `"kinesis:GetRecords"`, `"Read"`, 1): `statement 1: the Action "Read" is no SERVICE:NAME`,
		} {
			c.refused("PutResourcePolicy", m{"ResourceARN": "<ARN>", "Policy": text}, invalidArgument, "The resource policy is not valid: "+why+".")
		}
		c.gives("GetResourcePolicy", m{"ResourceARN": "<ARN>"}, m{"Policy": "{}"})
	}},
	{"3.8 policies/20 KiB", func(c *caller) {
		c.create(1)
		good := policyOf(c.arn(c.s), "kinesis:GetRecords")
		c.empty("PutResourcePolicy", m{"ResourceARN": "<ARN>", "Policy": good + strings.Repeat(" ", 20<<10-len(good))})
		c.refused("PutResourcePolicy", m{"ResourceARN": "<ARN>", "Policy": good + strings.Repeat(" ", 20<<10+1-len(good))}, invalidArgument,
			"The resource policy is not valid: it has 20481 bytes and must not have more than 20480.")
	}},
	{"3.8 policies/malformed ARN", func(c *caller) {
		for _, op := range []string{"GetResourcePolicy", "DeleteResourcePolicy"} {
			c.refused(op, m{"ResourceARN": "arn:aws:kinesis:us-east-1:1:stream/s"}, validation,
				`1 validation error detected: Value 'arn:aws:kinesis:us-east-1:1:stream/s' at 'resourceARN' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:aws.*:kinesis:.*:\d{12}:.*stream/\S+`)
		}
	}},
}
