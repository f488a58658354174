package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
)

// TestDiskFull fills a small file system. Puts then get an error that clients
// retry, the process lives, reads go on, and room brings the puts back.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=96m", "shardstream-test", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: can't mount a small file system: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	n := startIn(t, filepath.Join(dir, "data"), "--transition-delay", "0s",
		"--journal-budget", strconv.Itoa(16<<20), "--disk-reserve", strconv.Itoa(16<<20))
	c := client(n.endpoint, once)
	createStream(t, c, "full", 2)
	createStream(t, c, "small", 1)
	h, small := history.New(), history.New()
	if !putOnce(t.Context(), c, "small", small, batchOf("small", 0, 10, 100)) {
		t.Fatal("a first put fails")
	}
	refused := ""
	for i := 0; refused == ""; i++ {
		if i == 1000 {
			t.Fatal("the file system never fills")
		}
		batch := batchOf("full", i, 50, 20_000)
		for j := range batch {
			h.Attempt(*batch[j].PartitionKey, string(batch[j].Data))
		}
		out, err := c.PutRecords(t.Context(), &kinesis.PutRecordsInput{StreamName: aws.String("full"), Records: batch})
		if err != nil {
			refused = codeOf(err)
			if refused == "" {
				t.Fatalf("a put on the full disk: %v", err)
			}
			break
		}
		for j, r := range out.Records {
			if code := aws.ToString(r.ErrorCode); code != "" {
				refused = code
				continue
			}
			h.Acknowledged(string(batch[j].Data), history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber})
		}
	}
	acknowledged, _ := h.Counts()
	t.Logf("full after %d records: %s", acknowledged, refused)
	if !slices.Contains([]string{"InternalFailure", "ServiceUnavailable", "ProvisionedThroughputExceededException", "LimitExceededException"}, refused) {
		t.Errorf("puts are refused with %q, which clients don't retry", refused)
	}
	if !n.running() {
		t.Fatal("the node has ended")
	}
	check(t, n, "full", h)
	check(t, n, "small", small)

	// Also a restart on the full disk loses nothing.
	if status := n.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("SIGTERM on a full disk: status %d", status)
	}
	n.restart(t)
	check(t, n, "full", h)

	if _, err := c.DeleteStream(t.Context(), &kinesis.DeleteStreamInput{StreamName: aws.String("full")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if !putOnce(t.Context(), c, "small", small, batchOf("again", len(small.Check(nil)), 1, 100)) {
			return fmt.Errorf("puts are still refused")
		}
		return nil
	})
	check(t, n, "small", small)
}

// batchOf makes records of a key, whose values tell the batch and their number.
func batchOf(key string, batch, count, size int) []types.PutRecordsRequestEntry {
	var entries []types.PutRecordsRequestEntry
	for i := range count {
		entries = append(entries, types.PutRecordsRequestEntry{
			PartitionKey: aws.String(fmt.Sprintf("%s-%d", key, i%5)),
			Data:         fmt.Appendf(nil, "%s-%d-%d-%0*d", key, batch, i, size, 0),
		})
	}
	return entries
}

// filled starts a node, puts records until there is a segment behind the
// journal, and stops it.
func filled(t *testing.T) (n *node, h *history.History) {
	t.Helper()
	n = startIn(t, t.TempDir(), "--transition-delay", "0s", "--journal-budget", strconv.Itoa(8<<20), "--tail-cache", strconv.Itoa(1<<20))
	c := client(n.endpoint, once)
	createStream(t, c, "flipped", 1)
	h = history.New()
	for i := range 60 {
		if !putOnce(t.Context(), c, "flipped", h, batchOf("k", i, 50, 10_000)) {
			t.Fatal("a put fails")
		}
	}
	if status := n.stop(t, syscall.SIGTERM); status != 0 {
		t.Fatalf("SIGTERM: status %d", status)
	}
	return n, h
}

// largest gives the largest file below the folder of the data directory whose
// name begins with prefix.
func largest(t *testing.T, n *node, folder, prefix string) string {
	t.Helper()
	best, size := "", int64(0)
	err := filepath.WalkDir(filepath.Join(n.dir, folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(d.Name(), prefix) {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			best, size = path, info.Size()
		}
		return err
	})
	if err != nil || best == "" {
		t.Fatalf("no file %s* below %s: %v", prefix, folder, err)
	}
	return best
}

// flip changes one bit of the file, in the data of the record that begins with
// value: not in the padding between records, which holds nothing to lose.
func flip(t *testing.T, path, value string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte(value))
	if at < 0 {
		t.Fatalf("%s does not hold the record %s", path, value)
	}
	text[at] ^= 0x10
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("flipped a bit of byte %d of %s", at, path)
}

// damage is what `cluster recover --json` and `log verify --json` list.
type damage struct {
	Stream, Shard, File, Reason string
	Start, End, Records         uint64
}

func recoverJSON(t *testing.T, n *node, args ...string) (found, accepted []damage) {
	t.Helper()
	out, stderr, status := shardstream(t, nil, append([]string{"cluster", "recover", "--broker", n.operator, "--json"}, args...)...)
	if status != 0 {
		t.Fatalf("cluster recover: status %d: %s", status, stderr)
	}
	var report struct{ Damage, Accepted []damage }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return report.Damage, report.Accepted
}

// TestFlippedBitInSegment flips a bit in a stored segment. `log verify` names
// the file and ends with status 1; the node starts, never serves the damaged
// records as if they were good, names the range, and serves the rest once the
// operator has given the range up.
func TestFlippedBitInSegment(t *testing.T) {
	n, h := filled(t)
	if out, stderr, status := shardstream(t, nil, "log", "verify", n.dir); status != 0 {
		t.Fatalf("log verify of a sound directory: status %d: %s%s", status, out, stderr)
	}
	segment := largest(t, n, "shards", "")
	flip(t, segment, "k-30-7-")
	out, stderr, status := shardstream(t, nil, "log", "verify", n.dir)
	if status != 1 || !strings.Contains(out, filepath.Base(segment)) || !strings.Contains(out, "shardId-000000000000") {
		t.Errorf("log verify: status %d: %s%s; want 1 and the file", status, out, stderr)
	}

	n.restart(t)
	acknowledged, _ := h.Counts()
	var found []damage
	eventually(t, func() error { // the scrub reads in the background
		if reads, err := readAll(t.Context(), client(n.endpoint, once), "flipped"); err == nil && len(reads) == acknowledged {
			t.Fatal("damaged records are served as if they were good")
		}
		if found, _ = recoverJSON(t, n); len(found) == 0 {
			return fmt.Errorf("no damage is listed")
		}
		return nil
	})
	d := found[0]
	if d.Stream != "flipped" || d.Records == 0 || d.Records != d.End-d.Start || !strings.Contains(d.File, filepath.Base(segment)) {
		t.Errorf("damage is named as %+v", d)
	}
	if _, again := recoverJSON(t, n); len(again) != 0 {
		t.Errorf("listing has given up %v", again)
	}
	_, stderr, status = shardstream(t, strings.NewReader("yes\n"), "cluster", "recover", "--broker", n.operator)
	if status != 1 || !strings.Contains(stderr, "nothing was changed") {
		t.Errorf("another answer than the number: status %d: %s", status, stderr)
	}

	lost := uint64(0)
	for _, d := range found {
		lost += d.Records
	}
	out, stderr, status = shardstream(t, strings.NewReader(fmt.Sprintf("%d\n", lost)), "cluster", "recover", "--broker", n.operator)
	if status != 0 || !strings.Contains(out, "Given up") {
		t.Fatalf("cluster recover: status %d: %s%s", status, out, stderr)
	}
	reads := mustReadAll(t, client(n.endpoint), "flipped")
	if len(reads) != acknowledged-int(lost) {
		t.Errorf("%d of %d records are read, %d were given up", len(reads), acknowledged, lost)
	}
	onlyLost(t, h, reads, int(lost))
	if c := client(n.endpoint, once); !putOnce(t.Context(), c, "flipped", h, batchOf("later", 0, 10, 100)) {
		t.Error("the shard takes no puts after the recovery")
	}
	// The decision is durable.
	n.kill(t)
	n.restart(t)
	if again := mustReadAll(t, client(n.endpoint), "flipped"); len(again) != len(reads)+10 {
		t.Errorf("after a restart %d records are read, want %d", len(again), len(reads)+10)
	}
	if found, _ := recoverJSON(t, n); len(found) != 0 {
		t.Errorf("after the recovery there is damage: %v", found)
	}
}

// onlyLost checks that the history's only violations are that many lost records.
func onlyLost(t *testing.T, h *history.History, reads []history.Read, lost int) {
	t.Helper()
	for _, v := range h.Check(reads) {
		if strings.Contains(v, "is read at []") {
			lost--
			continue
		}
		t.Error(v)
	}
	if lost != 0 {
		t.Errorf("%d records more or less than the named range are gone", lost)
	}
}

// TestFlippedBitInJournal kills a node, flips a bit in the middle of its
// journal, and starts it: damage in the middle is never taken for a torn tail.
func TestFlippedBitInJournal(t *testing.T) {
	n := startIn(t, t.TempDir(), "--transition-delay", "0s")
	c := client(n.endpoint, once)
	createStream(t, c, "flipped", 1)
	h := history.New()
	for i := range 40 {
		if !putOnce(t.Context(), c, "flipped", h, batchOf("k", i, 10, 1000)) {
			t.Fatal("a put fails")
		}
	}
	n.kill(t)
	flip(t, largest(t, n, "journal", "J-"), "k-20-7-")
	if out, stderr, status := shardstream(t, nil, "log", "verify", n.dir); status != 1 || !strings.Contains(out, "journal") {
		t.Errorf("log verify: status %d: %s%s; want 1 and the journal", status, out, stderr)
	}
	n.restart(t)
	found, _ := recoverJSON(t, n)
	if len(found) == 0 {
		t.Fatal("no damage is listed")
	}
	_, accepted := recoverJSON(t, n, "--yes")
	if len(accepted) != len(found) {
		t.Errorf("%d ranges accepted of %d", len(accepted), len(found))
	}
	lost := 0
	for _, d := range accepted {
		lost += int(d.Records)
	}
	reads := mustReadAll(t, client(n.endpoint), "flipped")
	t.Logf("%d ranges with %d records given up, %d read", len(accepted), lost, len(reads))
	if acknowledged, _ := h.Counts(); lost == 0 || len(reads)+lost != acknowledged {
		t.Errorf("%d records acknowledged, %d named as lost, %d read", acknowledged, lost, len(reads))
	}
}

// TestFlippedBitInRaft flips bits in the metadata's store. The node must either
// see it and refuse to start with a line that names the store, or not be
// touched by it (the bit lay where nothing is); it must never start with other
// metadata.
func TestFlippedBitInRaft(t *testing.T) {
	n := startIn(t, t.TempDir(), "--transition-delay", "0s", "--stream", "one:1", "--stream", "two:2")
	if status := n.stop(t, syscall.SIGTERM); status != 0 {
		t.Fatalf("SIGTERM: status %d", status)
	}
	raft := filepath.Join(n.dir, "raft")
	sound := t.TempDir()
	if err := os.CopyFS(sound, os.DirFS(raft)); err != nil {
		t.Fatal(err)
	}
	restore := func() { // all of it: a start writes to the files beside the store too
		if err := errors.Join(os.RemoveAll(raft), os.CopyFS(raft, os.DirFS(sound))); err != nil {
			t.Fatal(err)
		}
	}
	store := largest(t, n, "raft", "")
	text, err := os.ReadFile(store)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := bytes.Index(text, []byte("two")); at >= 0; {
		restore()
		changed := slices.Clone(text)
		changed[at] ^= 0x01
		if err := os.WriteFile(store, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		serving := n.spawn(t, strings.TrimPrefix(n.endpoint, "http://"))
		select {
		case <-n.exited:
			refused++
			if n.status != 1 || !strings.Contains(n.text(), "raft") {
				t.Errorf("byte %d: status %d and no word of raft:\n%s", at, n.status, n.text())
			}
		case <-serving:
			out, err := client(n.endpoint).ListStreams(t.Context(), &kinesis.ListStreamsInput{})
			if err != nil || !slices.Equal(out.StreamNames, []string{"one", "two"}) {
				t.Errorf("byte %d: it serves other metadata: %v %v", at, out, err)
			}
			n.kill(t)
		}
		next := bytes.Index(text[at+1:], []byte("two"))
		if next < 0 {
			break
		}
		at += 1 + next
	}
	if refused == 0 {
		t.Error("no flipped bit was noticed")
	}
	restore()
	n.restart(t)
	out, err := client(n.endpoint).ListStreams(t.Context(), &kinesis.ListStreamsInput{})
	if err != nil || !slices.Equal(out.StreamNames, []string{"one", "two"}) {
		t.Errorf("with the sound store: %v %v", out, err)
	}
}

// TestLostMetadataIsRefusedEachTime removes raft/: the node must not begin
// anew over records that it can't name, at the second start no more than at
// the first.
func TestLostMetadataIsRefusedEachTime(t *testing.T) {
	n := startIn(t, t.TempDir(), "--transition-delay", "0s", "--stream", "lost:1")
	if status := n.stop(t, syscall.SIGTERM); status != 0 {
		t.Fatalf("SIGTERM: status %d", status)
	}
	if err := os.RemoveAll(filepath.Join(n.dir, "raft")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		serving := n.spawn(t, strings.TrimPrefix(n.endpoint, "http://"))
		select {
		case <-serving:
			t.Fatal("it serves without its metadata")
		case <-n.exited:
		}
		if n.status != 1 || !strings.Contains(n.text(), "raft") {
			t.Errorf("status %d and no word of raft:\n%s", n.status, n.text())
		}
	}
}
