package kms

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shardstream/stream"
)

var quiet = slog.New(slog.DiscardHandler)

// writeKeyring writes a keyring with one key that has the alias "orders", and
// gives both.
func writeKeyring(t *testing.T) (path string, f *KeyringFile) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keyring.yaml")
	f = &KeyringFile{}
	if _, err := f.Add(time.Now(), "orders"); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(path, true); err != nil {
		t.Fatal(err)
	}
	return path, f
}

// openKeyring opens a keyring that looks at its file at each use.
func openKeyring(t *testing.T, path string, create bool) *Keyring {
	t.Helper()
	k, err := OpenKeyring(path, create, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// look makes the keyring look at its file now.
func (k *Keyring) look() uint64 {
	k.looked.Store(0)
	return k.Version()
}

func TestKeyringWrapsForEachNameOfAKey(t *testing.T) {
	path, f := writeKeyring(t)
	k := openKeyring(t, path, false)
	id := f.Keys[0].ID
	c := Context{Cluster: "c", Stream: "s"}
	for _, name := range []string{
		id, "alias/orders", "alias/aws/kinesis",
		"arn:aws:kms:eu-west-1:123456789012:key/" + id,
		"arn:aws:kms:eu-west-1:123456789012:alias/orders",
		"arn:aws-cn:kms:cn-north-1:123456789012:alias/aws/kinesis",
	} {
		plain, wrapped, err := k.GenerateDataKey(t.Context(), name, c)
		if err != nil || len(plain) != KeySize || bytes.Contains(wrapped, plain) {
			t.Fatalf("%s: %d bytes, %v", name, len(plain), err)
		}
		if got, err := k.Unwrap(t.Context(), name, wrapped, c); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %v", name, err)
		}
		// Only as it was wrapped, and for what.
		for _, other := range []Context{{Cluster: "c", Stream: "t"}, {Cluster: "d", Stream: "s"}, {Stream: "cs"}, {Cluster: "cs"}} {
			if _, err := k.Unwrap(t.Context(), name, wrapped, other); !errors.Is(err, stream.Corrupt) {
				t.Errorf("%s, for %v: %v", name, other, err)
			}
		}
		for i := range wrapped {
			wrapped[i] ^= 1
			if _, err := k.Unwrap(t.Context(), name, wrapped, c); err == nil {
				t.Errorf("%s: byte %d changed unseen", name, i)
			}
			wrapped[i] ^= 1
		}
		for n := range wrapped {
			if _, err := k.Unwrap(t.Context(), name, wrapped[:n], c); !errors.Is(err, stream.Corrupt) {
				t.Errorf("%s: the first %d bytes: %v", name, n, err)
			}
		}
	}
	for name, want := range map[string]string{
		"alias/nope":                               "Alias alias/nope is not found.",
		"00000000-0000-0000-0000-000000000000":     "Key '00000000-0000-0000-0000-000000000000' does not exist",
		"arn:aws:kms:eu-west-1:123456789012:key/x": "Key 'x' does not exist",
		"arn:aws:s3:::bucket":                      "Invalid keyId 'arn:aws:s3:::bucket'",
		"arn:aws:kms:eu-west-1:123456789012:foo/x": "Invalid keyId 'arn:aws:kms:eu-west-1:123456789012:foo/x'",
		"a b":    "Invalid keyId 'a b'",
		"alias/": "Invalid keyId 'alias/'",
	} {
		_, _, err := k.GenerateDataKey(t.Context(), name, c)
		var refused *Error
		if !errors.As(err, &refused) || refused.Reason != NotFound || refused.Message != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeyringFollowsItsFile: a change is in force when it is seen, with a new
// version; a broken file changes nothing, a missing one takes all keys.
func TestKeyringFollowsItsFile(t *testing.T) {
	path, f := writeKeyring(t)
	k := openKeyring(t, path, false)
	c := Context{Cluster: "c", Stream: "s"}
	_, wrapped, err := k.GenerateDataKey(t.Context(), "alias/orders", c)
	if err != nil {
		t.Fatal(err)
	}
	version := k.look()
	if k.look() != version {
		t.Error("a new version of the same file")
	}
	reason := func() Reason {
		_, err := k.Unwrap(t.Context(), "alias/orders", wrapped, c)
		var refused *Error
		switch {
		case err == nil:
			return 0
		case errors.As(err, &refused):
			return refused.Reason
		}
		t.Fatal(err)
		return 0
	}
	for _, step := range []struct {
		name    string
		do      func() error
		want    Reason
		changed bool
	}{
		{"disabled", func() error { f.Keys[0].State = StateDisabled; return f.Write(path, false) }, Disabled, true},
		{"pending deletion", func() error { f.Keys[0].State = StatePendingDeletion; return f.Write(path, false) }, InvalidState, true},
		{"enabled", func() error { f.Keys[0].State = StateEnabled; return f.Write(path, false) }, 0, true},
		{"broken", func() error { return os.WriteFile(path, []byte("keys: ["), 0o600) }, 0, false},
		{"gone", func() error { return os.Remove(path) }, NotFound, true},
		{"back, rotated", func() error { f.Keys[0].Rotate(time.Now()); return f.Write(path, true) }, 0, true},
		{"the alias moved on", func() error {
			f.Keys[0].Aliases = nil
			_, err := f.Add(time.Now(), "orders")
			return errors.Join(err, f.Write(path, false))
		}, 0, true},
		{"without its version", func() error { f.Keys[0].Versions = f.Keys[0].Versions[1:]; return f.Write(path, false) }, NotFound, true},
		{"without its key", func() error { f.Keys, f.Default = f.Keys[1:], ""; return f.Write(path, false) }, NotFound, true},
	} {
		before := k.Version()
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		after := k.look()
		if got := reason(); got != step.want || (after != before) != step.changed {
			t.Errorf("%s: %v, version %d after %d", step.name, got, after, before)
		}
	}
}

func TestKeyringIsMadeWhenItIsNeeded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.yaml")
	if _, err := OpenKeyring(path, false, quiet); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a keyring that is not there: %v", err)
	}
	k := openKeyring(t, path, true)
	k.look()
	if _, err := k.Unwrap(t.Context(), "x", []byte("y"), Context{}); err == nil {
		t.Error("unwrapped")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("it was made before it was needed: %v", err)
	}
	// Something is encrypted already, by a keyring that is missing.
	if _, _, err := k.GenerateDataKey(t.Context(), "alias/aws/kinesis", Context{}); err == nil {
		t.Error("another keyring was begun")
	}
	_, wrapped, err := k.GenerateDataKey(t.Context(), "alias/aws/kinesis", Context{First: true})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	again := openKeyring(t, path, true)
	if _, err := again.Unwrap(t.Context(), "", wrapped, Context{}); err != nil {
		t.Error(err)
	}
	if err := (&KeyringFile{}).Write(path, true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another keyring: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".keyring-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestKeyringKeepsItsMode: a group that may read it still may after a change.
func TestKeyringKeepsItsMode(t *testing.T) {
	path, f := writeKeyring(t)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	f.Keys[0].Rotate(time.Now())
	if err := f.Write(path, false); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got, err := ReadKeyringFile(path); err != nil || len(got.Keys[0].Versions) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestKeyringFilesAreReadStrictly(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("secret!!"), 4))
	good := "default: a\nkeys:\n- id: a\n  aliases: [x/y, z]\n  state: enabled\n  versions:\n  - {version: 1, material: " + secret + "}\n" +
		"- id: b\n  state: disabled\n  versions:\n  - {version: 3, material: " + secret + ", created: 2026-11-25T20:00:00Z}\n"
	if f, err := ParseKeyring([]byte(good)); err != nil || f.Find("alias/aws/kinesis").ID != "a" || f.Find("alias/z").ID != "a" || f.Find("b").Versions[0].Version != 3 {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"an unknown key", "state: enabled", "stat: enabled", "field stat not found"},
		{"no state", "  state: enabled\n", "", "the state is enabled, disabled or pending-deletion"},
		{"another state", "state: enabled", "state: on", "the state is enabled, disabled or pending-deletion"},
		{"an id twice", "- id: b", "- id: a", "key a is there twice"},
		{"an id with a slash", "- id: b", "- id: b/c", "an id is 1 to 64"},
		{"an alias twice", "[x/y, z]", "[z, z]", "alias z is there twice"},
		{"an alias of AWS's", "[x/y, z]", "[aws/kinesis]", "not below"},
		{"an alias with its prefix", "[x/y, z]", "['alias/x:y']", "an alias is"},
		{"a default that is not there", "default: a", "default: c", "the default key c is not there"},
		{"version 0", "version: 1", "version: 0", "rising numbers from 1"},
		{"a falling version", "{version: 1, material: " + secret + "}", "{version: 2, material: " + secret + "}\n  - {version: 1, material: " + secret + "}", "rising numbers from 1"},
		{"short material", "version: 1, material: " + secret, "version: 1, material: " + secret[:40], "key a: the material of version 1 is not the base64 of 32 bytes"},
		{"material of another type", "version: 1, material: " + secret, "version: " + secret + ", material: x", "cannot unmarshal"},
		{"material as a name", "state: enabled", secret + ": enabled", "field a value not found"},
		{"two documents", good, good + "---\n" + good, "more than one document"},
		{"nothing", good, "", "the file is empty"},
		{"no map", good, "- a", "cannot unmarshal"},
	} {
		_, err := ParseKeyring([]byte(strings.Replace(good, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), secret[:10]) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
