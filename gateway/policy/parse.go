package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Parse reads a resource policy in JSON. Its errors are for people, one line.
func Parse(text string) (*Document, error) {
	m, err := members(json.RawMessage(text), "Version", "Id", "Statement")
	if err != nil {
		return nil, err
	}
	version, id := "2012-10-17", ""
	if err := errors.Join(word(m, "Version", &version), word(m, "Id", &id)); err != nil {
		return nil, err
	}
	if version != "2012-10-17" && version != "2008-10-17" {
		return nil, fmt.Errorf("the Version must be 2012-10-17, not %q", version)
	}
	raw, there := m["Statement"]
	if !there {
		return nil, errors.New("the Statement is missing")
	}
	list := []json.RawMessage{raw}
	if isList(raw) {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("the Statement: %w", err)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("the Statement is empty")
	}
	d := &Document{}
	for i, raw := range list {
		s, err := parseStatement(raw)
		if err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
		d.statements = append(d.statements, s)
	}
	return d, nil
}

func parseStatement(raw json.RawMessage) (s statement, err error) {
	m, err := members(raw, "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition")
	if err != nil {
		return s, err
	}
	var sid, effect string
	if err := errors.Join(word(m, "Sid", &sid), word(m, "Effect", &effect)); err != nil {
		return s, err
	}
	if effect != "Allow" && effect != "Deny" {
		return s, fmt.Errorf("the Effect must be Allow or Deny, not %q", effect)
	}
	s.deny = effect == "Deny"
	if raw, s.notPrincip, err = either(m, "Principal"); err != nil {
		return s, err
	}
	if s.notPrincip && !s.deny {
		return s, errors.New("the NotPrincipal form is for Deny only")
	}
	if s.principals, err = parsePrincipals(raw); err != nil {
		return s, err
	}
	if raw, s.notAction, err = either(m, "Action"); err != nil {
		return s, err
	}
	if s.actions, err = words(raw); err != nil {
		return s, fmt.Errorf("the Action: %w", err)
	}
	for _, a := range s.actions {
		if service, name, ok := strings.Cut(a, ":"); a != "*" && (!ok || service == "" || name == "") {
			return s, fmt.Errorf("the Action %q is no SERVICE:NAME", a)
		}
	}
	if raw, s.notResource, err = either(m, "Resource"); err != nil {
		return s, err
	}
	if s.resources, err = words(raw); err != nil {
		return s, fmt.Errorf("the Resource: %w", err)
	}
	for _, r := range s.resources {
		if r != "*" && !strings.HasPrefix(r, "arn:") {
			return s, fmt.Errorf("the Resource %q is no ARN", r)
		}
	}
	return s, parseCondition(m, &s)
}

// parseCondition notes that there is one. An empty one is none.
func parseCondition(m map[string]json.RawMessage, s *statement) error {
	raw, there := m["Condition"]
	if !there {
		return nil
	}
	var condition map[string]map[string]any
	if err := json.Unmarshal(raw, &condition); err != nil {
		return errors.New("the Condition must be an object of objects")
	}
	s.conditional = len(condition) > 0
	return nil
}

func parsePrincipals(raw json.RawMessage) (p principals, err error) {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		if name != "*" {
			return p, fmt.Errorf("the Principal must be \"*\" or an object, not %q", name)
		}
		p.everyone = true
		return p, nil
	}
	m, err := members(raw, "AWS", "Service", "Federated", "CanonicalUser")
	if err != nil {
		return p, fmt.Errorf("the Principal: %w", err)
	}
	if len(m) == 0 {
		return p, errors.New("the Principal is empty")
	}
	for kind, raw := range m {
		names, err := words(raw)
		if err != nil {
			return p, fmt.Errorf("the Principal %s: %w", kind, err)
		}
		if kind != "AWS" {
			continue
		}
		for _, name := range names {
			account, isRoot := rootOf(name)
			switch {
			case name == "*":
				p.everyone = true
			case isRoot:
				p.accounts = append(p.accounts, account)
			case strings.HasPrefix(name, "arn:") && strings.Count(name, ":") >= 5 && !strings.ContainsAny(name, "*?"):
				p.arns = append(p.arns, name)
			default:
				return p, fmt.Errorf("the Principal %q is no account, no ARN and not *", name)
			}
		}
	}
	return p, nil
}

// rootOf reads the two forms that stand for a whole account: its digits, and the
// ARN of its root.
func rootOf(name string) (account string, ok bool) {
	if isAccount(name) {
		return name, true
	}
	parts := strings.Split(name, ":")
	if len(parts) == 6 && parts[0] == "arn" && parts[2] == "iam" && parts[5] == "root" && isAccount(parts[4]) {
		return parts[4], true
	}
	return "", false
}

func isAccount(s string) bool { return len(s) == 12 && strings.Trim(s, "0123456789") == "" }

// members gives the members of an object that may have those and no others. Each
// name may come once: what reads the last one here may read the first elsewhere.
func members(raw json.RawMessage, known ...string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	t, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if t != json.Delim('{') {
		return nil, errors.New("must be a JSON object")
	}
	m := make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		name, _ := t.(string)
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		switch _, twice := m[name]; {
		case err != nil:
			return nil, fmt.Errorf("not JSON: %w", err)
		case !slices.Contains(known, name):
			return nil, fmt.Errorf("unknown member %q", name)
		case twice:
			return nil, fmt.Errorf("member %q is there twice", name)
		}
		m[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something stands behind the object")
	}
	return m, nil
}

// either gives the member of that name or of its Not form; there must be one.
func either(m map[string]json.RawMessage, name string) (raw json.RawMessage, not bool, err error) {
	raw, plain := m[name]
	inverse, not := m["Not"+name]
	switch {
	case plain && not:
		return nil, false, fmt.Errorf("%s and Not%s exclude each other", name, name)
	case plain:
		return raw, false, nil
	case not:
		return inverse, true, nil
	}
	return nil, false, fmt.Errorf("%s is missing", name)
}

// word reads a member that is a string into to, and leaves it alone if there is none.
func word(m map[string]json.RawMessage, name string, to *string) error {
	raw, there := m[name]
	if there && (!isString(raw) || json.Unmarshal(raw, to) != nil) {
		return fmt.Errorf("%s must be a string", name)
	}
	return nil
}

// words reads a string, or a list of at least one.
func words(raw json.RawMessage) ([]string, error) {
	var list []string
	if isString(raw) {
		list = make([]string, 1)
		if err := json.Unmarshal(raw, &list[0]); err != nil {
			return nil, err
		}
		return list, nil
	}
	var items []any // a null would pass for a string
	if !isList(raw) || json.Unmarshal(raw, &items) != nil || len(items) == 0 {
		return nil, errors.New("must be a string or a list of strings")
	}
	for _, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, errors.New("must be a string or a list of strings")
		}
		list = append(list, s)
	}
	return list, nil
}

func isString(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '"' }

func isList(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '[' }
