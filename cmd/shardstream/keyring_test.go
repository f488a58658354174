package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
