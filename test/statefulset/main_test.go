//go:build linux

// Package statefulset replays the life of the pods of deploy/kubernetes with
// real processes: each runs with the arguments of its manifest in a network
// namespace of its own, with an address of its own, and a pod that is replaced
// comes back with another address and the same disk. Writers without retries put
// meanwhile, through a gateway in another namespace.
//
// It needs root and ip(8), and is off unless SHARDSTREAM_NETNS is set, as by
// `make test-statefulset`. It is no test of Kubernetes. Its invariant is that
// nothing leaves the machine: the namespaces are joined by a switch that has no
// other end.
package statefulset

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// program is the binary under test, built once.
var program string

// patience bounds each wait for something that must happen. It is long: a
// starved machine may be slow, and only a hang should fail here.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	if os.Getenv("SHARDSTREAM_NETNS") == "" {
		return m.Run() // all is skipped
	}
	dir, err := os.MkdirTemp("", "shardstream-statefulset-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "shardstream")
	build := exec.Command("go", "build", "-o", program, "shardstream/cmd/shardstream")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as in the image: Go's own resolver
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func needsNamespaces(t *testing.T) {
	t.Helper()
	if os.Getenv("SHARDSTREAM_NETNS") == "" {
		t.Skip("set SHARDSTREAM_NETNS=1 (make test-statefulset): it needs root, and makes network namespaces")
	}
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
}

// manifestArgs gives the arguments of a manifest's only container, with its
// variables put in. The data directory is the test's.
func manifestArgs(t *testing.T, file string, variables map[string]string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join("../../deploy/kubernetes", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := yaml.NewDecoder(f); ; {
		var o struct {
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			t.Fatalf("%s has no pods", file)
		} else if err != nil {
			t.Fatal(err)
		}
		containers := o.Spec.Template.Spec.Containers
		if len(containers) == 0 {
			continue
		}
		var args []string
		for _, a := range containers[0].Args {
			for name, value := range variables {
				a = strings.ReplaceAll(a, name, value)
			}
			if strings.Contains(a, "$(") {
				t.Fatalf("%s: %s has a variable that is not known here", file, a)
			}
			args = append(args, a)
		}
		return args
	}
}

// eventually calls check until it gives nil. For what another process does in
// its own time.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not even after %s: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
