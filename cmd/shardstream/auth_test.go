package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestCredentialsFile: a change is in force soon, a mistake leaves the former in
// force and is told once, and nothing goes on behind stop.
func TestCredentialsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	write := func(text string) {
		t.Helper()
		// As Kubernetes and careful editors do it.
		if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
	}
	var log output
	flags := authFlags{Auth: "sigv4", Credentials: path}
	write("keys: [{access-key: A, secret-key: s}]")
	f, err := flags.open(slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	stop := f.watch(time.Millisecond)
	until := func(ok func() bool) {
		for !ok() {
			if t.Context().Err() != nil {
				t.Fatal(t.Context().Err())
			}
			runtime.Gosched()
		}
	}
	has := func(key string) bool { return f.current.Load().Find([]byte(key)) != nil }

	write("keys: [{access-key: B, secret-key: s}]")
	until(func() bool { return has("B") && !has("A") })
	write("keys: [{access-key: C}]")
	until(func() bool { return strings.Contains(log.String(), "secret-key of C is missing") })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until(func() bool { return strings.Contains(log.String(), "no such file") })
	if !has("B") {
		t.Error("the former is no longer in force")
	}
	write("keys: [{access-key: D, secret-key: s}]")
	until(func() bool { return has("D") })
	stop()
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
		t.Errorf("%d complaints: %s", n, log.String())
	}
	if strings.Contains(log.String(), "chmod") {
		t.Errorf("a warning about a file of ours: %s", log.String())
	}
}

func TestReadableSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte("keys: []"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil { // whatever the umask
		t.Fatal(err)
	}
	var log output
	flags := authFlags{Auth: "sigv4", Credentials: path}
	if _, err := flags.open(slog.New(slog.NewTextHandler(&log, nil))); err != nil || !strings.Contains(log.String(), "chmod o-r") {
		t.Errorf("%v: %s", err, log.String())
	}
}

// TestQuietWithAuthentication: who asks for signatures may be reached by all.
func TestQuietWithAuthentication(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte("keys: []"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startCommand(t, "dev", "--ephemeral", "--listen", ":0", "--grpc-listen", "127.0.0.1:0", "--auth", "sigv4", "--credentials", path)
	endpoint := d.printed(`endpoint: (\S+)`)
	d.printed(`Ctrl-C`)
	if out := d.out.String() + d.err.String(); strings.Contains(out, "WARNING") || strings.Contains(out, "ANYONE") {
		t.Errorf("a warning: %s", out)
	}
	endpoint = strings.Replace(endpoint, "[::]", "127.0.0.1", 1)
	if code, body := callKinesis(t, endpoint, "ListStreams", `{}`); code != 400 || !strings.Contains(body, `"MissingAuthenticationTokenException"`) {
		t.Errorf("%d %s", code, body)
	}
}
