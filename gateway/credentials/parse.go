package credentials

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"shardstream/gateway/kinesis"
	"shardstream/gateway/policy"
)

// A credentials file, YAML:
//
//	keys:
//	  - access-key: AKIDORDERS
//	    secret-key: 3dUyGkq...
//	    session-token: ...               # must come with each request; none without
//	    expires: 2027-01-01T00:00:00Z    # never without
//	    user: orders-writer              # name or ARN; the access key without
//	    actions: [Put*, kinesis:ListShards]                # all without
//	    streams: [orders, team-a-*, "arn:aws:kinesis:*:*:stream/x"]  # all without
type file struct {
	Keys *[]entry `yaml:"keys"`
}

type entry struct {
	AccessKey    string    `yaml:"access-key"`
	SecretKey    string    `yaml:"secret-key"`
	SessionToken string    `yaml:"session-token"`
	Expires      string    `yaml:"expires"`
	User         string    `yaml:"user"`
	Actions      *[]string `yaml:"actions"`
	Streams      *[]string `yaml:"streams"`
}

const actionPrefix = "kinesis:"

var (
	accessKeyForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
	userForm      = regexp.MustCompile(`^[A-Za-z0-9_+=,.@/-]{1,128}$`)
	userARNForm   = regexp.MustCompile(`^arn:[a-z-]+:(iam|sts)::[0-9]{12}:[A-Za-z0-9_+=,.@/-]{1,512}$`)
	streamForm    = regexp.MustCompile(`^[A-Za-z0-9_.*?-]{1,128}$`)
	streamARNForm = regexp.MustCompile(`^arn:[^:]+:[^:]+:[^:]*:[^:]*:.+$`)
)

// Parse reads a credentials file. Its error is one line that says what to change,
// and has nothing secret in it.
func Parse(text []byte) (*Set, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var f file
	if err := d.Decode(&f); err != nil && err != io.EOF {
		return nil, oneLine(err)
	}
	if f.Keys == nil {
		return nil, errors.New("there is no list \"keys\" of access keys in it")
	}
	if err := d.Decode(new(any)); err != io.EOF {
		return nil, errors.New("there is a second document in it")
	}
	s := &Set{byKey: make(map[string]*Credential, len(*f.Keys))}
	for i, e := range *f.Keys {
		c, err := e.credential()
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		if s.byKey[c.AccessKey] != nil {
			return nil, fmt.Errorf("key %d: access-key %s is there twice", i+1, c.AccessKey)
		}
		s.byKey[c.AccessKey] = c
	}
	return s, nil
}

func (e *entry) credential() (*Credential, error) {
	switch {
	case e.AccessKey == "":
		return nil, errors.New("access-key is missing")
	case !accessKeyForm.MatchString(e.AccessKey):
		return nil, errors.New("access-key must be 1 to 128 letters, digits, '_', '.' or '-'")
	case e.SecretKey == "":
		return nil, fmt.Errorf("secret-key of %s is missing", e.AccessKey)
	}
	c := &Credential{AccessKey: e.AccessKey, user: e.User}
	c.Secret.Key, c.Secret.Token = e.SecretKey, e.SessionToken
	if e.Expires != "" {
		var err error
		if c.Secret.Expires, err = time.Parse(time.RFC3339, e.Expires); err != nil {
			return nil, fmt.Errorf("expires of %s is no time such as 2027-01-01T00:00:00Z", e.AccessKey)
		}
	}
	if c.user == "" {
		c.user = e.AccessKey
	}
	if strings.HasPrefix(c.user, "arn:") {
		if !userARNForm.MatchString(c.user) {
			return nil, fmt.Errorf("user %q of %s is no ARN of a user or role", c.user, e.AccessKey)
		}
	} else if !userForm.MatchString(c.user) {
		return nil, fmt.Errorf("user %q of %s must be letters, digits and _+=,.@/-", c.user, e.AccessKey)
	}
	if e.Actions != nil {
		c.actions = make([]string, 0, len(*e.Actions))
		for _, a := range *e.Actions {
			if !strings.Contains(a, ":") && a != "*" {
				a = actionPrefix + a
			}
			if !isAction(a) {
				return nil, fmt.Errorf("action %q of %s is no operation of Kinesis: want such as PutRecord, kinesis:Get* or *", a, e.AccessKey)
			}
			c.actions = append(c.actions, a)
		}
	}
	if e.Streams != nil {
		c.streams = make([]string, 0, len(*e.Streams))
		for _, p := range *e.Streams {
			if !streamForm.MatchString(p) && !streamARNForm.MatchString(p) {
				return nil, fmt.Errorf("stream %q of %s is neither a name nor an ARN, with * and ? for any characters", p, e.AccessKey)
			}
			c.streams = append(c.streams, p)
		}
	}
	return c, nil
}

// isAction reports whether a pattern is one of any operation: another is a slip.
func isAction(pattern string) bool {
	return slices.ContainsFunc(kinesis.Ops(), func(op kinesis.Op) bool {
		return policy.MatchAction(pattern, actionPrefix+string(op))
	})
}

var (
	goTypes = regexp.MustCompile(` (in type|into) \S+`)
	values  = regexp.MustCompile("`[^`]*`")
)

// oneLine tells what YAML found wrong, without our types and without values, which
// may be secret.
func oneLine(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = values.ReplaceAllString(goTypes.ReplaceAllString(text, ""), "value")
	text = strings.TrimPrefix(text, "yaml: ")
	return errors.New(strings.TrimPrefix(text, "unmarshal errors: "))
}
