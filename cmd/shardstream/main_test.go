package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runCLI runs the program as a user would, without a process of its own.
func runCLI(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

func TestUsageErrorsAreOneLineAndStatus2(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"putt"}, `unexpected argument putt`},
		{[]string{"put"}, `expected "<stream>"`},
		{[]string{"put", "s", "--no-such-flag"}, `unknown flag --no-such-flag`},
		{[]string{"put", "s", "--batch", "0"}, `--batch 0: want 1 to 500`},
		{[]string{"put", "s", "--key-separator", ","}, `--key-separator goes with --key-field`},
		{[]string{"put", "s", "--endpoint", "localhost:4567"}, `--endpoint localhost:4567: want http://`},
		{[]string{"put", "s", "--key-random", "--partition-key", "k"}, `can't be used together`},
		{[]string{"tail", "s", "--from", "yesterday"}, `--from yesterday: want trim-horizon, latest, or a time`},
		{[]string{"tail", "s", "--format", "xml"}, `--format must be one of`},
		{[]string{"--log-level", "loud", "version"}, `--log-level must be one of`},
		{[]string{"bench", "put", "--size", "3"}, `--size 3: want 30 to`},
		{[]string{"bench", "put", "--rate", "fast"}, `--rate`},
		{[]string{"cluster"}, `expected one of "status"`},
		{[]string{"cluster", "status", "--interval", "0s"}, `--interval 0s`},
		{[]string{"broker", "--join", "here"}, `--join here: want HOST:PORT`},
		{[]string{"broker", "--bootstrap-expect=-1"}, `--bootstrap-expect -1`},
		{[]string{"broker", "--data-dir", "no/such"}, `a new node needs --join`},
		{[]string{"gateway", "--brokers", "127.0.0.1:1", "--kms-keyring", "no/such"}, `--kms-keyring: keyring: stat no/such`},
		{[]string{"gateway", "--brokers", "127.0.0.1:1", "--kms-endpoint", "here"}, `--kms-endpoint here: want aws, http://`},
		{[]string{"gateway", "--brokers", "127.0.0.1:1", "--kms-endpoint", "aws", "--kms-keyring", "k"}, `can't be used together`},
		{[]string{"dev", "--kms-region", "eu-west-1"}, `--kms-region goes with --kms-endpoint`},
		{[]string{"keyring", "state", "k", "alias/x", "off"}, `<state> must be one of`},
		{[]string{"keyring", "init", "k", "--alias", "aws/kinesis"}, `an alias is 1 to 250`},
		{[]string{"playground", "--nodes", "0"}, `--nodes 0: want 1 to`},
		{[]string{"playground", "--base-port", "65530"}, `--base-port 65530`},
	} {
		status, stdout, stderr := runCLI(t, "", c.args...)
		if status != exitUsage || stdout != "" || strings.Count(stderr, "\n") != 1 ||
			!strings.Contains(stderr, c.want) || !strings.Contains(stderr, "--help'") {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want status 2 and one line with %q and how to get help",
				c.args, status, stdout, stderr, c.want)
		}
	}
}

func TestHelpTeachesAndEndsWithStatus0(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"--help"},
		{"put", "--help"},
		{"tail", "--help"},
		{"bench", "--help"},
		{"cluster", "recover", "--help"},
		{"cluster", "status", "--help"},
		{"cluster", "members", "--help"},
		{"stream", "list", "--help"},
		{"stream", "describe", "--help"},
		{"broker", "--help"},
		{"keyring", "--help"},
		{"gateway", "--help"},
		{"playground", "--help"},
	} {
		status, stdout, stderr := runCLI(t, "", args...)
		if status != exitOK || stderr != "" || !strings.Contains(stdout, "Usage: shardstream") {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
		if len(args) > 1 && !strings.Contains(stdout, "Examples:") {
			t.Errorf("%q: the help has no examples", args)
		}
	}
}

// TestFlagOverEnvironmentOverFile holds the contract's order with --from of
// tail, whose value shows in the error for a bad one.
func TestFlagOverEnvironmentOverFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	from := func(args ...string) string {
		t.Helper()
		_, _, stderr := runCLI(t, "", append([]string{"tail", "s"}, args...)...)
		_, value, _ := strings.Cut(stderr, "--from ")
		value, _, _ = strings.Cut(value, ":")
		return value
	}
	expect := func(want string, args ...string) {
		t.Helper()
		if got := from(args...); got != want {
			t.Errorf("--from is %q, want %q", got, want)
		}
	}
	write("from: in-file\n")
	expect("in-file", "--config", file)
	write("from: in-file\ntail:\n  from: in-section\n")
	expect("in-section", "--config", file)
	t.Setenv("SHARDSTREAM_CONFIG", file)
	expect("in-section")
	t.Setenv("SHARDSTREAM_FROM", "in-environment")
	expect("in-environment")
	expect("on-line", "--from", "on-line")
}

func TestConfigFileMistakesAreOneClearLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	for _, c := range []struct{ text, want string }{
		{"nope: 1\n", "unknown key nope"},
		{"log-format: json\ntail:\n  batch: 1\n", "unknown key tail.batch"},
		{"config: other.yaml\n", "unknown key config"},
		{"cluster:\n  recover:\n    yes: true\n", "unknown key cluster.recover.yes"},
		{"tail: 7\n", "unknown key tail"},
		{"from: [\n", "yaml:"},
		{"- a\n- b\n", "yaml:"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, _, stderr := runCLI(t, "", "version", "--config", file)
		if status != exitUsage || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, file) {
			t.Errorf("%q: status %d, stderr %q; want one line with %q", c.text, status, stderr, c.want)
		}
	}
	status, _, stderr := runCLI(t, "", "version", "--config", file+".absent")
	if status != exitUsage || !strings.Contains(stderr, "no such file") {
		t.Errorf("absent file: status %d, stderr %q", status, stderr)
	}
}

func TestVersion(t *testing.T) {
	status, stdout, _ := runCLI(t, "", "version")
	if status != exitOK || !strings.HasPrefix(stdout, "shardstream dev ") {
		t.Errorf("status %d, stdout %q", status, stdout)
	}
}

func TestAskedToStopIsStatus0(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if status := run(ctx, []string{"tail", "s", "--endpoint", "http://127.0.0.1:1"}, strings.NewReader(""), &out, &errs); status != exitOK {
		t.Errorf("status %d, stderr %q", status, errs.String())
	}
}
