package realclients

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// row is one line of the compatibility table.
type row struct {
	client, version, wire, exercised, result string
}

// table gathers the rows of a run.
type table struct {
	mu   sync.Mutex
	rows []row
}

var results table

// trial begins the row of a client. It skips the test unless the run is one for
// the real clients. The test's end gives the result, and so does a skip, which
// says why.
func trial(t *testing.T, client, wire, exercised string) *row {
	t.Helper()
	if os.Getenv("SHARDSTREAM_CLIENTS") == "" {
		t.Skip("SKIPPED: make test-clients runs this")
	}
	r := &row{client: client, version: "?", wire: wire, exercised: exercised}
	t.Cleanup(func() {
		switch {
		case t.Failed():
			r.result = "FAILS"
		case !t.Skipped():
			r.result = "works"
		}
		results.add(*r)
	})
	return r
}

// unavailable skips the test, with the reason in its row.
func (r *row) unavailable(t *testing.T, reason string) {
	t.Helper()
	r.result = "not run: " + reason
	t.Skip("SKIPPED: " + reason)
}

// needs skips the test unless the installer has brought the component, which it
// says by a file of the component's name.
func (r *row) needs(t *testing.T, component string) {
	t.Helper()
	state := repository(".cache", "clients")
	if _, err := os.Stat(filepath.Join(state, component+".installed")); err == nil {
		return
	}
	why, err := os.ReadFile(filepath.Join(state, component+".missing"))
	if err != nil {
		r.unavailable(t, component+" was not installed (make test-clients does it)")
	}
	r.unavailable(t, strings.TrimSpace(string(why)))
}

func (tb *table) add(r row) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.rows = append(tb.rows, r)
}

// publish prints the table, and leaves it in .cache/clients/compatibility.md.
func (tb *table) publish() error {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if len(tb.rows) == 0 {
		return nil
	}
	slices.SortStableFunc(tb.rows, func(x, y row) int {
		return strings.Compare(strings.ToLower(x.client), strings.ToLower(y.client))
	})
	var b strings.Builder
	fmt.Fprint(&b, "All requests were signed, and the signatures verified.\n\n")
	fmt.Fprintln(&b, "| client | version | wire | exercised | result |")
	fmt.Fprintln(&b, "| --- | --- | --- | --- | --- |")
	for _, r := range tb.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.client, r.version, r.wire, r.exercised, r.result)
	}
	fmt.Print("\n", b.String(), "\n")
	return os.WriteFile(repository(".cache", "clients", "compatibility.md"), []byte(b.String()), 0o644)
}

// moduleVersion reads the version of a Go module that the consumers in Go use.
func moduleVersion(module string) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		text, err := os.ReadFile(repository("test", "clients", "go", "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == module {
				return f[1]
			}
		}
		t.Fatalf("no %s in go.mod", module)
		return ""
	}
}

// packageVersion reads the version of an npm package that was installed.
func packageVersion(folder, name string) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		text, err := os.ReadFile(repository("test", "clients", folder, "node_modules", name, "package.json"))
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Version string }
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		return p.Version
	}
}

// pythonVersion reads the version of a Python package of a virtual environment's
// requirements.
func pythonVersion(folder, name string) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		text, err := os.ReadFile(repository("test", "clients", folder, "requirements.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, name+"=="); ok {
				return strings.TrimSpace(v)
			}
		}
		t.Fatalf("no %s in the requirements of %s", name, folder)
		return ""
	}
}
