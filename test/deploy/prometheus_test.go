package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

var (
	wholeName = regexp.MustCompile(`"(shardstream_[a-z0-9_]+)"`)
	// The gateway's names are put together by a few functions.
	gatewayName = regexp.MustCompile(`(?:= opts|\b(?:counter|gauge))\("([a-z0-9_]+)"`)
	quoted      = regexp.MustCompile(`"[^"]*"`)
	selectors   = regexp.MustCompile(`\{[^}]*\}|\b(?:by|on|without|ignoring|group_left|group_right) ?\([^)]*\)`)
	metricName  = regexp.MustCompile(`[a-z_][a-z0-9_]*`)
	alertTitle  = regexp.MustCompile(`(?m)^### (Shardstream\w+)$`)
)

// foreign are metrics that Prometheus and its client library give.
var foreign = []string{"up", "process_start_time_seconds", "process_open_fds", "process_max_fds"}

// words of the language, as far as the rules use them.
var words = []string{
	"and", "or", "unless", "by", "on", "changes", "count", "deriv", "histogram_quantile", "max", "min", "predict_linear", "abs", "rate", "sum",
}

// metrics reads the names of all metrics out of the sources: a vector without
// samples shows in no scrape.
func metrics(t *testing.T) []string {
	t.Helper()
	names := slices.Clone(foreign)
	for _, dir := range []string{"broker", "gateway", "cmd", "raftfsm"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range wholeName.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
			for _, m := range gatewayName.FindAllSubmatch(text, -1) {
				names = append(names, "shardstream_gateway_"+string(m[1]))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// unknownMetrics names what an expression asks for and nobody counts.
func unknownMetrics(expr string, known []string) (unknown []string) {
	bare := regexp.MustCompile(`\[[^\]]*\]`).ReplaceAllString(selectors.ReplaceAllString(quoted.ReplaceAllString(expr, ""), ""), "")
	for _, name := range metricName.FindAllString(bare, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !slices.Contains(words, name) && !slices.Contains(known, name) && !slices.Contains(known, base) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

func checkRules(text, operations string, known, codes []string) (problems []string) {
	var f ruleFile
	if err := strictly(text, &f); err != nil {
		return []string{err.Error()}
	}
	var runbook []string
	for _, m := range alertTitle.FindAllStringSubmatch(operations, -1) {
		runbook = append(runbook, m[1])
	}
	var alerts []string
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			bad := func(format string, args ...any) {
				problems = append(problems, r.Alert+": "+fmt.Sprintf(format, args...))
			}
			if slices.Contains(alerts, r.Alert) {
				bad("is there twice")
			}
			alerts = append(alerts, r.Alert)
			if unknown := unknownMetrics(r.Expr, known); len(unknown) > 0 || r.Expr == "" {
				bad("no such metric: %s", strings.Join(unknown, ", "))
			}
			if strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") {
				bad("brackets")
			}
			for _, m := range regexp.MustCompile(`code=~?"([^"]*)"`).FindAllStringSubmatch(r.Expr, -1) {
				for _, c := range strings.Split(m[1], "|") {
					if !slices.Contains(codes, c) {
						bad("no such error code: %s", c)
					}
				}
			}
			if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
				bad("%v", err)
			}
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				bad("severity %q", s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["runbook_url"] != "docs/operations.md#"+strings.ToLower(r.Alert) {
				bad("wants a summary, and its own place in docs/operations.md")
			}
			if !slices.Contains(runbook, r.Alert) {
				bad("docs/operations.md does not tell what to do")
			}
		}
	}
	for _, title := range runbook {
		if !slices.Contains(alerts, title) {
			problems = append(problems, "docs/operations.md tells of "+title+", which is no alert")
		}
	}
	return problems
}

func TestPrometheus(t *testing.T) {
	known, operations := metrics(t), read(t, "docs/operations.md")
	var codes []string
	for _, m := range regexp.MustCompile(`Code\w+ += "(\w+)"`).FindAllStringSubmatch(read(t, "gateway/kinesis/errors.go"), -1) {
		codes = append(codes, m[1])
	}
	if len(codes) == 0 {
		t.Fatal(errors.New("no error codes found"))
	}
	breakIt(t, read(t, "deploy/prometheus/rules.yaml"), func(text string) []string { return checkRules(text, operations, known, codes) }, []mistake{
		{"a metric that does not exist", "shardstream_disk_full", "shardstream_disk_fulls", "no such metric: shardstream_disk_fulls"},
		{"a code that does not exist", "InternalFailure|", "InternalError|", "no such error code: InternalError"},
		{"an unknown key", "for: 2m", "during: 2m", "during"},
		{"a bracket less", "deriv(shardstream_disk_free_bytes[1h])", "deriv(shardstream_disk_free_bytes[1h]", "brackets"},
		{"no severity", "severity: page", "severity: high", `severity "high"`},
		{"an alert without a runbook", "ShardstreamDiskFull\n", "ShardstreamDiskFuller\n", "does not tell what to do"},
		{"a runbook without an alert", "alert: ShardstreamThrottled", "alert: ShardstreamDiskFull", "tells of ShardstreamThrottled"},
	})
	// The chapter names metrics too.
	for _, m := range regexp.MustCompile("shardstream_[a-z0-9_]+").FindAllString(operations, -1) {
		if unknown := unknownMetrics(m, known); len(unknown) > 0 {
			t.Errorf("docs/operations.md names %s, which does not exist", m)
		}
	}
}
