package powerfs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// TestBbolt loses power under a process that commits to a bbolt database, which
// it has mapped: each commit that it told of is there after the restart, and
// the database is sound. What a sync that does nothing has told of is not.
func TestBbolt(t *testing.T) {
	const rounds = 15
	p := mounted(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	told := uint64(0)
	for round := range rounds {
		has, now, err := commits(t, p, random.IntN(200), Loss{Torn: round%3 > 0, Seed: random.Uint64()})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if has < told {
			t.Fatalf("round %d: %d commits are there, of %d", round, has, told)
		}
		told = now
	}
	t.Logf("%d commits, %d power losses", told, rounds)

	must(t, p.Lie(true))
	_, told, err := commits(t, p, 100, Loss{})
	must(t, err, p.Heal())
	if has, _, err := commits(t, p, 0, Loss{}); err == nil && has >= told {
		t.Errorf("%d commits are there, of %d that were not synced: this test finds nothing", has, told)
	}
}

// commits runs the process on the mount until it has told of so many commits,
// and loses power. It gives the commits that were there at its start, and those
// that it told of.
func commits(t *testing.T, p *Process, count int, loss Loss) (has, told uint64, err error) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, filepath.Join(p.Dir, "db"))
	cmd.Env = append(os.Environ(), roleVar+"=bbolt")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for n := 0; lines.Scan(); n++ {
		told, err = strconv.ParseUint(lines.Text(), 10, 64)
		must(t, err)
		if n == 0 {
			has = told
		}
		if n == count {
			must(t, p.PowerLoss(loss), cmd.Process.Kill())
		}
	}
	_ = cmd.Wait() // killed, or the reason is in stderr
	must(t, p.PowerOn())
	if told == 0 {
		return 0, 0, fmt.Errorf("the database does not open: %s", stderr.String())
	}
	return has, told, nil
}

// commitForEver opens a database, tells how many commits it has, and tells of
// each that it makes. The status is for the one that looks at stderr.
func commitForEver(name string) int {
	err := commit(name, os.Stdout)
	fmt.Fprintln(os.Stderr, err)
	return 1
}

var bucket = []byte("commits")

func commit(name string, told io.Writer) error {
	db, err := bbolt.Open(name, 0o644, nil)
	if err != nil {
		return err
	}
	if err := syncPath(filepath.Dir(name)); err != nil {
		return err
	}
	n := uint64(0)
	err = db.Update(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		// A commit is a key, all those before it included.
		return b.ForEach(func(k, v []byte) error {
			if n++; binary.BigEndian.Uint64(k) != n || len(v) != valueSize(n) || v[0] != byte(n) {
				return fmt.Errorf("key %x with %d bytes is found where %d should be", k, len(v), n)
			}
			return nil
		})
	})
	for ; err == nil; n++ {
		if n > 0 {
			if _, err := fmt.Fprintln(told, n); err != nil {
				return err
			}
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			k, v := binary.BigEndian.AppendUint64(nil, n+1), make([]byte, valueSize(n+1))
			v[0] = byte(n + 1)
			return tx.Bucket(bucket).Put(k, v)
		})
	}
	return err
}

// valueSize makes some commits larger than a page.
func valueSize(n uint64) int { return 1 + int(n*n%9973) }
