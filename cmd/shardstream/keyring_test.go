package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "shardstream/proto/shardstream/v1"
)

// TestKeyring takes a keyring through its life.
func TestKeyring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.yaml")
	ok := func(args ...string) string {
		t.Helper()
		status, stdout, stderr := runCLI(t, "", append([]string{"keyring"}, args...)...)
		if status != exitOK || stderr != "" {
			t.Fatalf("%q: status %d, %s", args, status, stderr)
		}
		return strings.TrimSpace(stdout)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		status, _, stderr := runCLI(t, "", append([]string{"keyring"}, args...)...)
		if status != exitFailure || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d, %q; want %q", args, status, stderr, want)
		}
	}
	first := ok("init", path)
	second := ok("add", path, "--alias", "orders", "--alias", "alias/clicks")
	ok("rotate", path, "alias/orders")
	ok("state", path, first, "disabled")
	ok("default", path, "alias/clicks")
	lines := strings.Split(ok("list", path), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], first+"  disabled  1 ") || !strings.HasPrefix(lines[2], second+"  enabled   2 ") ||
		!strings.HasSuffix(lines[2], "  alias/aws/kinesis, alias/orders, alias/clicks") {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused("is there already", "init", path)
	refused("has no key alias/none", "rotate", path, "alias/none")
	refused("no such file", "list", path+"x")
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("a refused command changed the keyring: %v", err)
	}
	// A mistake of the user's is named with the place, and the file stays.
	status, _, stderr := runCLI(t, "", "keyring", "add", path, "--alias", "orders")
	if status != exitUsage || !strings.Contains(stderr, "alias orders is there twice") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// TestDataKeysOfAStream: until when an operator has to keep the wrapping key.
func TestDataKeysOfAStream(t *testing.T) {
	const at = 1_795_507_200_000
	var out strings.Builder
	printDataKeys(&out, dataKeyRows(&pb.Stream{RetentionHours: 48, DataKeys: []*pb.DataKey{
		{Id: 2, KeyId: "alias/a", CreatedMs: at, RetiredMs: at + 3_600_000},
		{Id: 3, KeyId: "alias/b", CreatedMs: at + 3_600_000},
	}}))
	if got := out.String(); got != "data key 2, wrapped by alias/a: used until 2026-11-24T09:00:00.000Z, needed until 2026-11-27T09:00:00.000Z\n"+
		"data key 3, wrapped by alias/b: in use since 2026-11-24T09:00:00.000Z\n\n" {
		t.Errorf("%q", got)
	}
	out.Reset()
	if printDataKeys(&out, dataKeyRows(&pb.Stream{})); out.Len() > 0 {
		t.Errorf("%q of a stream that was never encrypted", out.String())
	}
}
