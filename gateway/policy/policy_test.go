package policy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const (
	alice  = "arn:aws:iam::111111111111:user/alice"
	bob    = "arn:aws:iam::222222222222:user/bob"
	orders = "arn:aws:kinesis:us-east-1:111111111111:stream/orders"
)

func parse(t *testing.T, statements ...string) *Document {
	t.Helper()
	d, err := Parse(`{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func statementOf(effect, principal, action, resource string, more ...string) string {
	s := fmt.Sprintf(`{"Effect":%q,"Principal":%s,"Action":%s,"Resource":%s`, effect, principal, action, resource)
	for _, m := range more {
		s += "," + m
	}
	return s + "}"
}

// TestEvaluate asks, row by row, whether alice may PutRecord to orders.
func TestEvaluate(t *testing.T) {
	const all, put, stream = `"*"`, `"kinesis:PutRecord"`, `"` + orders + `"`
	const condition = `"Condition":{"StringEquals":{"aws:SourceVpc":"v"}}`
	list := func(s ...string) string { return "[" + strings.Join(s, ",") + "]" }
	aws := func(s string) string { return `{"AWS":` + s + `}` }
	for _, c := range []struct {
		name string
		want Decision
		in   []string
	}{
		{"everyone", Allow, []string{statementOf("Allow", all, put, stream)}},
		{"everyone of AWS", Allow, []string{statementOf("Allow", aws(all), put, stream)}},
		{"her ARN", Allow, []string{statementOf("Allow", aws(`"`+alice+`"`), put, stream)}},
		{"her ARN in a list", Allow, []string{statementOf("Allow", aws(list(`"`+bob+`"`, `"`+alice+`"`)), put, stream)}},
		{"her account", AllowAccount, []string{statementOf("Allow", aws(`"111111111111"`), put, stream)}},
		{"her account's root", AllowAccount, []string{statementOf("Allow", aws(`"arn:aws:iam::111111111111:root"`), put, stream)}},
		{"another", None, []string{statementOf("Allow", aws(`"`+bob+`"`), put, stream)}},
		{"another account", None, []string{statementOf("Allow", aws(`"222222222222"`), put, stream)}},
		{"a service", None, []string{statementOf("Allow", `{"Service":"firehose.amazonaws.com"}`, put, stream)}},
		{"another action", None, []string{statementOf("Allow", all, `"kinesis:PutRecords"`, stream)}},
		{"actions in a list", Allow, []string{statementOf("Allow", all, list(`"kinesis:GetRecords"`, put), stream)}},
		{"a pattern of actions", Allow, []string{statementOf("Allow", all, `"Kinesis:put*"`, stream)}},
		{"any action", Allow, []string{statementOf("Allow", all, all, stream)}},
		{"another resource", None, []string{statementOf("Allow", all, put, `"`+orders+`s"`)}},
		{"any resource", Allow, []string{statementOf("Allow", all, put, all)}},
		{"the resource in any region", Allow, []string{statementOf("Allow", all, put, `"`+strings.Replace(orders, "us-east-1", "eu-west-1", 1)+`"`)}},
		{"the resource in another account", None, []string{statementOf("Allow", all, put, `"`+strings.Replace(orders, "1111", "3333", 1)+`"`)}},
		{"a pattern of resources", Allow, []string{statementOf("Allow", all, put, `"arn:aws:kinesis:*:*:stream/ord?r*"`)}},
		{"deny wins, last", Deny, []string{statementOf("Allow", all, put, stream), statementOf("Deny", aws(`"111111111111"`), all, all)}},
		{"deny wins, first", Deny, []string{statementOf("Deny", aws(`"`+alice+`"`), put, stream), statementOf("Allow", all, put, stream)}},
		{"deny in another region", Deny, []string{statementOf("Deny", all, put, `"`+strings.Replace(orders, "us-east-1", "eu-west-1", 1)+`"`)}},
		{"deny others", Allow, []string{statementOf("Deny", aws(`"`+bob+`"`), all, all), statementOf("Allow", all, put, stream)}},
		{"by name beats by account", Allow, []string{statementOf("Allow", all, put, stream), statementOf("Allow", aws(`"111111111111"`), put, stream)}},
		{"a condition never allows", None, []string{statementOf("Allow", all, put, stream, condition)}},
		{"a condition always denies", Deny, []string{statementOf("Deny", all, put, stream, condition), statementOf("Allow", all, put, stream)}},
		{"an empty condition is none", Allow, []string{statementOf("Allow", all, put, stream, `"Condition":{}`)}},
		{"all actions but", None, []string{`{"Effect":"Allow","Principal":"*","NotAction":"kinesis:Put*","Resource":"*"}`}},
		{"all actions but others", Allow, []string{`{"Effect":"Allow","Principal":"*","NotAction":"kinesis:Get*","Resource":"*"}`}},
		{"all resources but", None, []string{`{"Effect":"Allow","Principal":"*","Action":"*","NotResource":"` + orders + `"}`}},
		{"all principals but her", None, []string{`{"Effect":"Deny","NotPrincipal":{"AWS":"` + alice + `"},"Action":"*","Resource":"*"}`}},
		{"all principals but another", Deny, []string{`{"Effect":"Deny","NotPrincipal":{"AWS":"` + bob + `"},"Action":"*","Resource":"*"}`}},
	} {
		r := Request{Principal: alice, Account: "111111111111", Action: "kinesis:PutRecord", Resource: orders}
		if got := parse(t, c.in...).Evaluate(r); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
	if (*Document)(nil).Evaluate(Request{}) != None {
		t.Error("no policy decides something")
	}
}

// TestMalformed: what is not understood to the last member is refused.
func TestMalformed(t *testing.T) {
	good := statementOf("Allow", `"*"`, `"kinesis:*"`, `"*"`)
	for _, text := range []string{good} {
		if _, err := Parse(`{"Statement":` + text + `}`); err != nil {
			t.Errorf("a single statement: %v", err)
		}
	}
	for _, text := range []string{
		``, `x`, `null`, `[]`, `"x"`, `{}`, `{"Statement":[]}`, `{"Statement":"x"}`, `{"Statement":[null]}`, `{"Statement":[` + good,
		`{"Statement":` + good + `} x`, `{"Version":"2020-01-01","Statement":` + good + `}`, `{"Version":1,"Statement":` + good + `}`,
		`{"statement":` + good + `}`, `{"Statement":` + good + `,"More":1}`, `{"Statement":` + good + `,"Statement":` + good + `}`,
		`{"Statement":` + strings.Replace(good, "Allow", "allow", 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Effect"`, `"effect"`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Effect":"Allow",`, ``, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*",`, ``, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*"`, `"Principal":"`+alice+`"`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*"`, `"Principal":{}`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*"`, `"Principal":{"AWS":[]}`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*"`, `"Principal":{"AWS":"x"}`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*"`, `"Principal":{"AWS":[null]}`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*"`, `"Principal":{"AWS":"arn:aws:iam::111111111111:user/*"}`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal":"*"`, `"Principal":{"Who":"*"}`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal"`, `"NotPrincipal"`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Principal"`, `"NotPrincipal":"*","Principal"`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"kinesis:*"`, `"PutRecord"`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"kinesis:*"`, `[]`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"kinesis:*"`, `null`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Resource":"*"`, `"Resource":"orders"`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `,"Resource":"*"`, ``, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Resource":"*"`, `"Resource":"*","Condition":"x"`, 1) + `}`,
		`{"Statement":` + strings.Replace(good, `"Resource":"*"`, `"Resource":"*","Condition":{"StringEquals":"x"}`, 1) + `}`,
	} {
		d, err := Parse(text)
		if err == nil || d != nil {
			t.Errorf("taken: %s", text)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %v", err)
		}
	}
}

// TestMatch compares with regular expressions.
func TestMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern, s := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern"), rapid.StringMatching(`[ab]{0,12}`).Draw(t, "s")
		expression := "^" + strings.NewReplacer("*", ".*", "?", ".").Replace(pattern) + "$"
		if got, want := Match(pattern, s), regexp.MustCompile(expression).MatchString(s); got != want {
			t.Fatalf("%q of %q: %v", pattern, s, got)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":[` + statementOf("Deny", `{"AWS":["*"]}`, `"kinesis:*"`, `"*"`) + `]}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse(text)
		if err == nil {
			d.Evaluate(Request{Principal: alice, Account: "111111111111", Action: "kinesis:PutRecord", Resource: orders})
		}
	})
}
