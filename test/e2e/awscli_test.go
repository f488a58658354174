package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// step is a command of the README's tutorial with the output that it shows.
type step struct {
	line    string
	assign  string // for NAME=$(…), the name
	expects string
}

// tutorial takes the steps out of the README's console blocks: lines that begin
// with "$ " are commands, the others are output.
func tutorial(t *testing.T) []step {
	t.Helper()
	text, err := os.ReadFile(repository("README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			command, is := strings.CutPrefix(line, "$ ")
			switch {
			case is:
				s := step{line: strings.TrimSpace(command)}
				if m := regexp.MustCompile(`^([A-Z]+)=\$\(`).FindStringSubmatch(s.line); m != nil {
					s.assign = m[1]
				}
				steps = append(steps, s)
			case len(steps) == 0:
				t.Fatalf("output before any command: %s", line)
			default:
				steps[len(steps)-1].expects += line
			}
		}
	}
	if len(steps) < 12 {
		t.Fatalf("found only %d steps in the README", len(steps))
	}
	return steps
}

// pattern makes of expected output an expression in which "..." is anything.
func pattern(expects string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(strings.TrimSpace(expects))
	return regexp.MustCompile(`(?s)^` + strings.ReplaceAll(quoted, `\.\.\.`, `.*`) + `$`)
}

// TestTutorial runs the README's tutorial word for word with the AWS CLI. Where
// the README waits for a state, the step is repeated until it is there.
func TestTutorial(t *testing.T) {
	aws := pythonTool(t, "aws")
	// A CLI needs a second to start on a busy machine: the states in between
	// must still be there to be seen.
	n := start(t, "--ephemeral", "--transition-delay", "6s")
	env := clientEnv("PATH=" + filepath.Dir(aws) + string(os.PathListSeparator) + os.Getenv("PATH"))
	for _, s := range tutorial(t) {
		line := strings.ReplaceAll(s.line, "http://127.0.0.1:4567", n.endpoint)
		if s.assign != "" {
			line += `; printf %s "$` + s.assign + `"`
		}
		waits := strings.Contains(line, " describe-stream")
		var out string
		for tries := 0; ; tries++ {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
			cmd.Env = env
			var text bytes.Buffer
			cmd.Stdout, cmd.Stderr = &text, &text
			err := cmd.Run()
			out = strings.TrimSpace(text.String())
			// The newest CLI names its error's code once more in brackets.
			out = strings.TrimPrefix(out, "aws: [ERROR]: ")
			if s.assign != "" || pattern(s.expects).MatchString(out) {
				if fails := strings.HasPrefix(strings.TrimSpace(s.expects), "An error"); (err != nil) != fails {
					t.Fatalf("$ %s\n%v\n%s", s.line, err, out)
				}
				break
			}
			if !waits || tries == 60 {
				t.Fatalf("$ %s\n%s\nwant\n%s", s.line, out, s.expects)
			}
		}
		if s.assign != "" {
			env = append(env, s.assign+"="+out)
		}
	}
}
