package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// checkImage checks the Dockerfile, as far as it can go wrong by a change made
// elsewhere.
func checkImage(t *testing.T, text string) (problems []string) {
	t.Helper()
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod")); m == nil || !strings.Contains(text, "golang:"+m[1]+" ") {
		bad("is not built with the Go of go.mod")
	}
	for _, m := range regexp.MustCompile(`\./((?:cmd|deploy)/\S+)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			bad("builds what is not there: %v", err)
		}
	}
	if builds := strings.Count(text, "go build "); builds == 0 || builds != strings.Count(text, "CGO_ENABLED=0 ") {
		bad("builds with cgo what must run in an empty image")
	}
	if !strings.Contains(read(t, "cmd/shardstream/version.go"), "\nvar version ") || !strings.Contains(text, "-X main.version=$VERSION") {
		bad("the version is not told to the linker")
	}
	_, last, found := strings.Cut(text, "\nFROM scratch\n")
	if !found {
		return append(problems, "the last stage is not an empty image")
	}
	if !regexp.MustCompile(`(?m)^USER [1-9]\d*:[1-9]\d*$`).MatchString(last) {
		bad("runs as root, or as a name")
	}
	variable := regexp.MustCompile(`(?m)^ENV (SHARDSTREAM_\w+)=(\S+)$`).FindStringSubmatch(last)
	volume := regexp.MustCompile(`(?m)^VOLUME (\S+)$`).FindStringSubmatch(last)
	switch {
	case variable == nil || volume == nil:
		bad("has no data directory in a volume")
	default:
		for _, c := range []string{"broker", "dev"} {
			if _, ok := flagsOf(t, c)[settingFlag(variable[1])]; !ok || settingFlag(variable[1]) != "data-dir" {
				bad("%s is not the data directory of 'shardstream %s'", variable[1], c)
			}
		}
		if !strings.HasPrefix(variable[2], volume[1]+"/") {
			bad("the data directory %s is not below the volume %s", variable[2], volume[1])
		}
	}
	var want []string
	for name, flags := range listens {
		for _, flag := range flags {
			want = append(want, command{name: name}.port(t, flag))
		}
	}
	for _, p := range want {
		if !regexp.MustCompile(`(?m)^EXPOSE .*\b` + p + `\b`).MatchString(last) {
			bad("does not expose %s", p)
		}
	}
	return problems
}

func TestImage(t *testing.T) {
	breakIt(t, read(t, "deploy/Dockerfile"), func(text string) []string { return checkImage(t, text) }, []mistake{
		{"another Go", "golang:1.26 ", "golang:1.20 ", "the Go of go.mod"},
		{"a package that is not there", "./cmd/shardstream", "./cmd/shardstreamd", "is not there"},
		{"with cgo", "CGO_ENABLED=0 ", "", "cgo"},
		{"root", "USER 65532:65532", "USER root", "runs as root"},
		{"data outside of the volume", "VOLUME /var/lib/shardstream", "VOLUME /data", "not below the volume"},
		{"a port less", "7071 ", "", "does not expose 7071"},
	})
	// What the build does not see, it must not need.
	ignored := strings.Fields(read(t, "deploy/Dockerfile.dockerignore"))
	for _, needed := range []string{"cmd", "deploy", "proto", "go.sum", "go.mod", "stream"} {
		if slices.Contains(ignored, needed) {
			t.Errorf("the build needs %s, and Dockerfile.dockerignore leaves it out", needed)
		}
	}
}
