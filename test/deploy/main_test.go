// Package deploy checks the files below deploy/ without a network, a cluster or
// docker: that they are well formed by the schemas of those who read them, that
// each flag and metric they name exists, and that what belongs together agrees.
//
// It runs nothing of what it checks. The invariant it keeps: each check is shown
// to find a mistake, by files that are broken on purpose.
package deploy

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

const root = "../.."

// program is the binary whose flags are asked for, built once.
var program string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shardstream-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "shardstream")
	if out, err := exec.Command("go", "build", "-o", program, "shardstream/cmd/shardstream").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents splits a YAML file. Each document stands for itself, as for
// Kubernetes: an anchor of one is unknown in the next.
func documents(text string) []string {
	return regexp.MustCompile(`(?m)^---$`).Split(text, -1)
}

// strictly decodes one YAML document. An unknown or doubled key is an error.
func strictly(text string, to any) error {
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	return d.Decode(to)
}

// command is what a container or a unit runs, as far as flags go.
type command struct {
	name  string            // "broker"
	flags map[string]string // without the dashes
}

// commandOf reads arguments of the program. Flags have the form --name=value.
func commandOf(args []string) (command, error) {
	c := command{flags: map[string]string{}}
	for _, a := range args {
		name, value, hasValue := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		switch {
		case !strings.HasPrefix(a, "-") && c.name == "":
			c.name = a
		case !strings.HasPrefix(a, "--") || !hasValue:
			return c, fmt.Errorf("%q is neither the command nor --flag=value", a)
		default:
			c.flags[name] = value
		}
	}
	return c, nil
}

// unknownFlags names what the command does not have.
func (c command) unknownFlags(t *testing.T) (problems []string) {
	t.Helper()
	known := flagsOf(t, c.name)
	for name := range c.flags {
		if _, ok := known[name]; !ok {
			problems = append(problems, fmt.Sprintf("'shardstream %s' has no flag --%s", c.name, name))
		}
	}
	return problems
}

// port gives the port that a command listens on by a flag or its default.
func (c command) port(t *testing.T, flag string) string {
	t.Helper()
	address := c.flags[flag]
	if address == "" {
		address = flagsOf(t, c.name)[flag]
	}
	return address[strings.LastIndex(address, ":")+1:]
}

// shutdownTimeout gives how long the command may take for its stop.
func (c command) shutdownTimeout(t *testing.T) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(c.flags["shutdown-timeout"])
	if err != nil {
		if d, err = time.ParseDuration(flagsOf(t, c.name)["shutdown-timeout"]); err != nil {
			t.Fatalf("'shardstream %s' has no default of --shutdown-timeout: %v", c.name, err)
		}
	}
	return d
}

var (
	helpFlag = regexp.MustCompile(`(?m)^ +(?:-\w, +)?--(?:\[no-\])?([a-z0-9-]+)`)
	capital  = regexp.MustCompile(`([a-z])([A-Z])`)
	helps    sync.Map // of map[string]string by command
)

// flagsOf gives the flags that the command's help names, with their defaults:
// these are read from the source, as help does not tell all.
func flagsOf(t *testing.T, name string) map[string]string {
	t.Helper()
	if f, ok := helps.Load(name); ok {
		return f.(map[string]string)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, name, "--help").Output()
	if err != nil {
		t.Fatalf("shardstream %s --help: %v", name, err)
	}
	flags, defaults := map[string]string{}, defaultsOf(t, name)
	for _, m := range helpFlag.FindAllSubmatch(out, -1) {
		flags[string(m[1])] = defaults[string(m[1])]
	}
	helps.Store(name, flags)
	return flags
}

// defaultsOf reads the tags of the command's struct.
func defaultsOf(t *testing.T, name string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "cmd/shardstream", name+".go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name+"Cmd" {
			return true
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			if f.Tag == nil || len(f.Names) != 1 {
				continue
			}
			tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
			flag := tag.Get("name")
			if flag == "" {
				flag = strings.ToLower(capital.ReplaceAllString(f.Names[0].Name, "$1-$2"))
			}
			defaults[flag] = tag.Get("default")
		}
		return false
	})
	return defaults
}

func TestFlagsOf(t *testing.T) {
	for _, tt := range []struct{ command, flag, want string }{
		{"broker", "grpc-listen", ":7070"},
		{"broker", "shutdown-timeout", "30s"},
		{"gateway", "listen", ":4567"},
		{"gateway", "shutdown-timeout", "30s"},
	} {
		if got, ok := flagsOf(t, tt.command)[tt.flag]; !ok || got != tt.want {
			t.Errorf("%s --%s: default %q, %v; want %q", tt.command, tt.flag, got, ok, tt.want)
		}
	}
	if _, ok := flagsOf(t, "gateway")["join"]; ok {
		t.Error("a gateway has --join")
	}
}

// settingFlag gives the flag that a variable of the environment stands for, ""
// if it is none of ours.
func settingFlag(variable string) string {
	name, ours := strings.CutPrefix(variable, "SHARDSTREAM_")
	if !ours {
		return ""
	}
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// mistake breaks a file on purpose.
type mistake struct {
	name, from, to string
	want           string // in one of the problems
}

// breakIt applies the mistakes one by one, and has each found.
func breakIt(t *testing.T, good string, check func(text string) []string, mistakes []mistake) {
	t.Helper()
	if problems := check(good); len(problems) > 0 {
		t.Errorf("the file as it is: %s", strings.Join(problems, "\n"))
	}
	for _, m := range mistakes {
		if !strings.Contains(good, m.from) {
			t.Errorf("%s: the file does not contain %q", m.name, m.from)
			continue
		}
		problems := check(strings.ReplaceAll(good, m.from, m.to))
		if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, m.want) }) {
			t.Errorf("%s: found %q, not %q", m.name, problems, m.want)
		}
	}
}
