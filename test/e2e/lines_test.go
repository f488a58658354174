package e2e

import (
	"bufio"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// realLines collects lines that people and programs wrote: the machine's logs
// and Go's own sources, up to want of them.
func realLines(t *testing.T, want int) []string {
	t.Helper()
	var lines []string
	take := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil || !utf8.Valid(text) {
			return
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if len(lines) < want && !strings.HasSuffix(line, "\r") { // put takes "\r\n" for a line end
				lines = append(lines, line)
			}
		}
	}
	for _, log := range []string{"/var/log/dpkg.log", "/var/log/alternatives.log", "/var/log/syslog", "/var/log/messages"} {
		take(log)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src")
	err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case len(lines) >= want:
			return fs.SkipAll
		case strings.HasSuffix(path, ".go"):
			take(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) < want/2 {
		t.Skipf("SKIPPED: found only %d real lines on this machine", len(lines))
	}
	return lines
}

// keyOf is the partition key that `put --key-field 1` gives a line.
func keyOf(line string) string {
	if fields := strings.Fields(line); len(fields) > 0 {
		if key := fields[0]; utf8.RuneCountInString(key) <= 256 {
			return key
		}
		line = fields[0]
	}
	sum := md5.Sum([]byte(line))
	return hex.EncodeToString(sum[:8])
}

// TestRealLinesComeBackInOrder puts hundreds of thousands of real lines over 8
// shards and reads them back: for each partition key the same lines in the same
// order, and nothing else.
func TestRealLinesComeBackInOrder(t *testing.T) {
	want := 300_000
	if s := os.Getenv("SHARDSTREAM_LOG_LINES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		want = n
	}
	lines := realLines(t, want)
	n := startIn(t, t.TempDir())
	_, stderr, status := shardstream(t, strings.NewReader(strings.Join(lines, "\n")+"\n"),
		"put", "lines", "--create", "8", "--key-field", "1", "--endpoint", n.endpoint)
	if status != 0 {
		t.Fatalf("put: status %d: %s", status, stderr)
	}
	t.Log(stderr)
	// What is read back has been on the disk: the process in between is another.
	n.kill(t)
	n.restart(t)
	out, stderr, status := shardstream(t, nil,
		"tail", "lines", "--from", "trim-horizon", "--no-follow", "--format", "json", "--endpoint", n.endpoint)
	if status != 0 {
		t.Fatalf("tail: status %d: %s", status, stderr)
	}

	sent, got, shards := map[string][]string{}, map[string][]string{}, map[string]int{}
	for _, line := range lines {
		sent[keyOf(line)] = append(sent[keyOf(line)], line)
	}
	records := bufio.NewScanner(strings.NewReader(out))
	records.Buffer(nil, 64<<20)
	for records.Scan() {
		var r struct{ PartitionKey, ShardID, Data string }
		if err := json.Unmarshal(records.Bytes(), &r); err != nil {
			t.Fatalf("%v in %.200s", err, records.Text())
		}
		got[r.PartitionKey] = append(got[r.PartitionKey], r.Data)
		shards[r.ShardID]++
	}
	if len(shards) != 8 {
		t.Errorf("records in %d shards, want 8: %v", len(shards), shards)
	}
	total := 0
	for key, lines := range sent {
		if !slices.Equal(lines, got[key]) {
			t.Errorf("key %q: %d lines sent, %d come back, and they differ", key, len(lines), len(got[key]))
		}
		total += len(got[key])
	}
	if len(got) != len(sent) || total != len(lines) {
		t.Errorf("%d keys and %d lines sent, %d and %d come back", len(sent), len(lines), len(got), total)
	}
	t.Logf("%d lines of %d keys, the same per key: %v", total, len(got), shards)
}
