// Package test holds the tests of the repository as a whole: which package may
// import which, and below it the end-to-end tests. It tests no package's inside.
package test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows lists, for each package of ours, which of our packages it may import.
// The arrows point one way: gateways and brokers meet on the wire, and the
// vocabulary knows nobody.
var arrows = map[string][]string{
	"stream":               {},
	"throttle":             {},
	"proto":                {},
	"proto/shardstream/v1": {},
	"raftfsm":              {"proto/shardstream/v1", "stream"},
	"placement":            {"stream"},
	"ondemand":             {"stream"},
	"broker/recordlog":     {"stream"},
	"broker/member":        {"stream"},
	"broker/member/memnet": {},
	"broker/replica":       {"broker/recordlog", "proto/shardstream/v1", "stream"},
	"broker":               {"broker/recordlog", "broker/replica", "broker/member", "raftfsm", "placement", "ondemand", "proto/shardstream/v1", "stream", "throttle"},
	"gateway/kinesis":      {"stream"},
	"gateway/sigv4":        {},
	"gateway/policy":       {},
	"gateway/credentials":  {"gateway/kinesis", "gateway/policy", "gateway/sigv4"},
	"gateway/kms":          {"stream"},
	"gateway/brokers":      {"proto/shardstream/v1", "stream"},
	"gateway":              {"gateway/brokers", "gateway/credentials", "gateway/kinesis", "gateway/kms", "gateway/policy", "gateway/sigv4", "proto/shardstream/v1", "stream", "throttle"},
	// The ceiling of the load generator decodes puts just as the gateway does.
	"cmd/shardstream":                      {"broker", "broker/recordlog", "gateway", "gateway/brokers", "gateway/credentials", "gateway/kinesis", "gateway/kms", "ondemand", "proto/shardstream/v1", "stream", "cmd/shardstream/internal/benchclient"},
	"cmd/shardstream/internal/benchclient": {},
	"test":                                 {},
	"test/history":                         {},
	"test/sim":                             {"broker/recordlog", "broker/replica", "proto/shardstream/v1", "raftfsm", "stream"},
	"test/mutants":                         {},
	"test/plainbody":                       {},
	"test/chaos/judge":                     {},
	"test/chaos/load":                      {"test/chaos/judge", "test/plainbody"},
	"test/chaos/run":                       {"test/chaos/judge", "test/chaos/lab", "test/chaos/load", "test/chaos/network", "test/chaos/powerfs", "test/mutants"},
	"test/chaos":                           {},
	"test/chaos/saboteur":                  {"test/mutants"},
	"test/chaos/report":                    {"test/chaos/judge", "test/chaos/run"},
	"test/chaos/cmd/shardstream-chaos":     {"test/chaos/report", "test/chaos/run", "test/chaos/saboteur", "test/mutants"},
	"test/chaos/lab":                       {"test/chaos/network"},
	"test/chaos/network":                   {},
	"test/conformance":                     {},
	"test/chaos/powerfs":                   {},
	"test/chaos/powerfs/cmd/powerfs":       {"test/chaos/powerfs", "test/mutants"},
	"test/e2e":                             {},
	"test/cluster":                         {},
	"test/deploy":                          {},
	"test/realclients":                     {},
	"test/statefulset":                     {},
	"deploy/healthcheck":                   {},
}

// generated packages carry the comments that their generator gives them.
var generated = []string{"proto/shardstream/v1"}

const module = "shardstream"

type goPackage struct {
	ImportPath, Dir                    string
	Imports                            []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func (p goPackage) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 5 {
		t.Fatalf("go list found only %d packages", len(list))
	}
	return list
}

func TestArrows(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := arrows[p.name()]
		if !known {
			t.Errorf("%s: a new package: say in arrows what it may import", p.name())
			continue
		}
		for _, imported := range p.Imports {
			ours, is := strings.CutPrefix(imported, module+"/")
			if is && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, against the arrows", p.name(), ours)
			}
			if p.name() == "stream" && strings.Contains(imported, ".") {
				t.Errorf("stream imports %s: only the standard library", imported)
			}
		}
	}
}

// TestPackageComments holds that every package says once what it is for.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(generated, p.name()) {
			continue
		}
		files := p.GoFiles
		if len(files) == 0 {
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var with []string
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				with = append(with, file)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s: %d package comments, want 1: %v", p.name(), len(with), with)
		}
	}
}
