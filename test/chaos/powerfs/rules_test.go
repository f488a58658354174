package powerfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script runs lines of operations below the mount: what a program does.
func script(t *testing.T, dir, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		for i := 1; i < len(w); i++ {
			if w[0] != "write" || i == 1 {
				w[i] = filepath.Join(dir, w[i])
			}
		}
		var err error
		switch w[0] {
		case "write":
			err = os.WriteFile(w[1], []byte(w[2]), 0o644)
		case "sync":
			err = syncPath(w[1])
		case "mkdir":
			err = os.Mkdir(w[1], 0o755)
		case "mv":
			err = os.Rename(w[1], w[2])
		case "rm":
			err = os.Remove(w[1])
		default:
			t.Fatalf("what is %q?", w[0])
		}
		must(t, err)
	}
}

// tree gives what is in a directory: "a=content b/ b/c=content".
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, name)
		if err != nil || rel == "." {
			return err
		}
		if e.IsDir() {
			all = append(all, rel+"/")
			return nil
		}
		text, err := os.ReadFile(name)
		all = append(all, rel+"="+string(text))
		return err
	}))
	return strings.Join(all, " ")
}

// TestRules holds what a power loss leaves when nothing is torn: what was
// synced, and nothing else.
func TestRules(t *testing.T) {
	p := mounted(t)
	for _, c := range []struct{ name, before, after, left string }{
		{"nothing is synced", "", "write a 1", ""},
		{"the file alone", "", "write a 1\nsync a", ""},
		{"the directory alone", "", "write a 1\nsync .", "a="},
		{"both", "", "write a 1\nsync a\nsync .", "a=1"},
		{"overwritten", "write a old", "write a new", "a=old"},
		{"overwritten and synced", "write a old", "write a new\nsync a", "a=new"},
		{"removed", "write a 1", "rm a", "a=1"},
		{"removed for good", "write a 1", "rm a\nsync .", ""},
		{"renamed", "write a 1", "mv a b", "a=1"},
		{"renamed for good", "write a 1", "mv a b\nsync .", "b=1"},
		{"replaced", "write a old", "write b new\nsync b\nmv b a", "a=old"},
		{"replaced for good", "write a old", "write b new\nsync b\nmv b a\nsync .", "a=new"},
		{"replaced by what is not synced", "write a old", "write b new\nmv b a\nsync .", "a="},
		{"a directory", "", "mkdir d\nwrite d/a 1\nsync d/a\nsync d", ""},
		{"a directory for good", "", "mkdir d\nwrite d/a 1\nsync d/a\nsync d\nsync .", "d/ d/a=1"},
		{"an empty directory", "", "mkdir d\nwrite d/a 1\nsync d/a\nsync .", "d/"},
		{"a directory renamed", "mkdir d\nwrite d/a 1", "mv d e\nwrite e/b 2\nsync e/b\nsync e", "d/ d/a=1 d/b=2"},
		{"a directory renamed for good", "mkdir d\nwrite d/a 1", "mv d e\nsync .", "e/ e/a=1"},
		{"across, target synced", "mkdir d\nmkdir e\nwrite d/a 1", "mv d/a e/b\nsync e", "d/ e/ e/b=1"},
		{"across, source synced", "mkdir d\nmkdir e\nwrite d/a 1", "mv d/a e/b\nsync d", "d/ e/ e/b=1"},
		{"across, none synced", "mkdir d\nmkdir e\nwrite d/a 1", "mv d/a e/b\nsync .", "d/ d/a=1 e/"},
		{"a directory across", "mkdir d\nmkdir e\nwrite d/a 1", "mv d e/d\nsync e", "e/ e/d/ e/d/a=1"},
		{"removed with its content", "mkdir d\nwrite d/a 1", "rm d/a\nrm d", "d/ d/a=1"},
		{"removed with its content for good", "mkdir d\nwrite d/a 1", "rm d/a\nrm d\nsync .", ""},
		{"moved out of what is removed", "mkdir d\nwrite d/a 1", "mv d/a b\nrm d\nsync .", "b=1"},
		{"made again", "write a old", "rm a\nwrite a new\nsync a", "a=old"},
		{"made again for good", "write a old", "rm a\nwrite a new\nsync a\nsync .", "a=new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Each in a directory that is durable.
			dir := filepath.Join(p.Dir, strings.ReplaceAll(c.name, " ", "-"))
			must(t, os.Mkdir(dir, 0o755))
			syncDir(t, p.Dir)
			script(t, dir, c.before)
			must(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
				return errors.Join(err, syncPath(name))
			}))
			script(t, dir, c.after)
			seen := tree(t, dir)
			crash(t, p, Loss{})
			if left := tree(t, dir); left != c.left {
				t.Errorf("of %q the power loss leaves %q, want %q", seen, left, c.left)
			}
			platter := tree(t, filepath.Join(p.Backing, filepath.Base(dir)))
			if platter != c.left {
				t.Errorf("on the platter there is %q, want %q", platter, c.left)
			}
		})
	}
}

// TestOrderlyStop makes everything durable, and leaves the platter alone.
func TestOrderlyStop(t *testing.T) {
	p := mounted(t)
	script(t, p.Dir, "mkdir d\nwrite d/a 1\nmv d/a b\nwrite d/c 2\nrm d/c")
	must(t, p.Close())
	if left := tree(t, p.Backing); left != "b=1 d/" {
		t.Errorf("an orderly stop leaves %q", left)
	}
	again := startOn(t, p.Dir, p.Backing)
	if seen := tree(t, again.Dir); seen != "b=1 d/" {
		t.Errorf("another mount shows %q", seen)
	}
}

// TestKilledMount loses what was not synced, and its mount can be made again.
func TestKilledMount(t *testing.T) {
	p := mounted(t)
	script(t, p.Dir, "write a 1\nsync a\nsync .\nwrite a 2\nwrite b 3\nsync b")
	must(t, p.Kill())
	again := startOn(t, p.Dir, p.Backing)
	if seen := tree(t, again.Dir); seen != "a=1" {
		t.Errorf("after a kill there is %q", seen)
	}
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestPowerIsOff holds that nothing works without power, and nothing that was
// open works ever after.
func TestPowerIsOff(t *testing.T) {
	p := mounted(t)
	script(t, p.Dir, "write a 1\nsync a\nsync .")
	f, err := os.OpenFile(filepath.Join(p.Dir, "a"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, p.PowerLoss(Loss{}))
	buf := make([]byte, 1)
	use := func(when string) {
		t.Helper()
		_, err = f.ReadAt(buf, 0)
		wantErrno(t, when+"read", err, unix.EIO)
		_, err = f.WriteAt(buf, 0)
		wantErrno(t, when+"write", err, unix.EIO)
		wantErrno(t, when+"sync", f.Sync(), unix.EIO)
	}
	use("off: ")
	_, err = os.ReadDir(p.Dir)
	wantErrno(t, "off: list", err, unix.EIO)
	_, err = os.Create(filepath.Join(p.Dir, "b"))
	wantErrno(t, "off: create", err, unix.EIO)
	must(t, p.PowerOn())
	use("on again: ")
	if seen := tree(t, p.Dir); seen != "a=1" {
		t.Errorf("there is %q", seen)
	}
}

// TestDurableWrites holds that O_SYNC and O_DSYNC need no sync, and that close
// and O_DIRECT are none.
func TestDurableWrites(t *testing.T) {
	p := mounted(t)
	for name, flags := range map[string]int{"sync": unix.O_SYNC, "dsync": unix.O_DSYNC, "direct": unix.O_DIRECT, "plain": 0} {
		must(t, os.WriteFile(filepath.Join(p.Dir, name), nil, 0o644))
		syncDir(t, p.Dir)
		fd, err := unix.Open(filepath.Join(p.Dir, name), unix.O_RDWR|flags, 0)
		must(t, err)
		page, err := unix.Mmap(-1, 0, blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		must(t, err)
		page[0] = 'x'
		if n, err := unix.Pwrite(fd, page, 0); n != blockSize {
			t.Fatalf("%s: wrote %d: %v", name, n, err)
		}
		must(t, unix.Munmap(page), unix.Close(fd))
	}
	crash(t, p, Loss{})
	for name, want := range map[string]int64{"sync": blockSize, "dsync": blockSize, "direct": 0, "plain": 0} {
		info, err := os.Stat(filepath.Join(p.Dir, name))
		must(t, err)
		if info.Size() != want {
			t.Errorf("%s has %d bytes after the power loss, want %d", name, info.Size(), want)
		}
	}
}

// TestFailedSync loses what it should have written, for good, while the kernel
// still shows it: the trap that programs fall into which sync once more.
func TestFailedSync(t *testing.T) {
	p := mounted(t)
	f, err := os.Create(filepath.Join(p.Dir, "a"))
	must(t, err)
	defer f.Close()
	// The kernel keeps what a write fills whole pages with.
	old, now := bytes.Repeat([]byte("o"), blockSize), bytes.Repeat([]byte("n"), blockSize)
	_, err = f.WriteAt(old, 0)
	must(t, err, f.Sync(), syncPath(p.Dir), p.Fail(Failure{Op: OpSync, Pattern: "a", Count: 1}))
	_, err = f.WriteAt(now, 0)
	must(t, err)
	wantErrno(t, "the first sync", f.Sync(), unix.EIO)
	must(t, f.Sync())
	got := make([]byte, blockSize)
	look := func(when string, want []byte) {
		t.Helper()
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s there is %q..., %v", when, got[:1], err)
		}
	}
	look("in the cache", now)
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	look("without the cache", old)
	crash(t, p, Loss{})
	f, err = os.Open(f.Name())
	must(t, err)
	defer f.Close()
	look("after the power loss", old)
	if s, err := p.Stats(); err != nil || s.Failed != 1 || s.Losses != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestFaults lets each operation fail where it should, and nowhere else.
func TestFaults(t *testing.T) {
	p := mounted(t)
	script(t, p.Dir, "mkdir d\nwrite d/a 1\nwrite d/b 1\nsync d/a\nsync d\nsync .")
	a, b := filepath.Join(p.Dir, "d", "a"), filepath.Join(p.Dir, "d", "b")
	for _, c := range []struct {
		op  Op
		run func(name string) error
	}{
		{OpRead, func(name string) error { _, err := os.ReadFile(name); return err }},
		{OpWrite, func(name string) error { return os.WriteFile(name, []byte("22"), 0o644) }},
		{OpTruncate, func(name string) error { return os.Truncate(name, 1) }},
		{OpOpen, func(name string) error { _, err := os.ReadFile(name); return err }},
		{OpAttr, func(name string) error { return os.Chtimes(name, time.Time{}, time.Unix(1, 0)) }},
		{OpSync, syncPath},
		{OpCreate, func(name string) error { return os.WriteFile(name+"+", nil, 0o644) }},
		{OpRename, func(name string) error {
			return errors.Join(os.Rename(name+"+", name+"-"), os.Rename(name+"-", name+"+"))
		}},
		{OpRemove, func(name string) error { return os.Remove(name + "+") }},
	} {
		pattern := "d/a"
		switch c.op {
		case OpCreate, OpRename, OpRemove:
			pattern = "a+"
			if c.op != OpCreate {
				must(t, os.WriteFile(a+"+", nil, 0o644), os.WriteFile(b+"+", nil, 0o644))
			}
		}
		must(t, p.Fail(Failure{Op: c.op, Errno: unix.EROFS, Pattern: pattern}))
		if err := c.run(b); err != nil {
			t.Errorf("%s of another file: %v", c.op, err)
		}
		wantErrno(t, string(c.op), c.run(a), unix.EROFS)
		must(t, p.Heal())
		if err := c.run(a); err != nil {
			t.Errorf("%s when healed: %v", c.op, err)
		}
	}
	must(t, p.Fail(Failure{Op: OpSyncDir, Pattern: "d", Skip: 1}))
	syncDir(t, filepath.Dir(a))
	wantErrno(t, "syncdir", syncPath(filepath.Dir(a)), unix.EIO)
	wantErrno(t, "syncdir", syncPath(filepath.Dir(a)), unix.EIO)
	if err := p.Fail(Failure{Op: "sing"}); err == nil {
		t.Error("an unknown operation is taken")
	}
}

// TestFull takes what fits.
func TestFull(t *testing.T) {
	p := mounted(t)
	script(t, p.Dir, "write a 1234")
	must(t, p.Full(10))
	f, err := os.OpenFile(filepath.Join(p.Dir, "a"), os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	n, err := f.Write(make([]byte, 16))
	if n != 10 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a write of 16 bytes into 10: %d, %v", n, err)
	}
	must(t, os.WriteFile(filepath.Join(p.Dir, "empty"), nil, 0o644))
	_, err = f.Write([]byte{1})
	wantErrno(t, "one more byte", err, unix.ENOSPC)
	must(t, f.Sync())
	must(t, f.Truncate(4))
	if n, err := f.Write(make([]byte, 10)); n != 10 {
		t.Errorf("a write into the room that was made: %d, %v", n, err)
	}
	var s unix.Statfs_t
	must(t, unix.Statfs(p.Dir, &s))
	if s.Bavail != 0 {
		t.Errorf("%d blocks are free", s.Bavail)
	}
	must(t, os.Remove(f.Name()), p.Full(-1))
	must(t, os.WriteFile(filepath.Join(p.Dir, "b"), make([]byte, 100), 0o644))
}

// TestHang holds that who waits for the disk goes on when told so, and fails
// when the power goes.
func TestHang(t *testing.T) {
	p := mounted(t)
	script(t, p.Dir, "write a 1\nsync .")
	lose := func() error { return p.PowerLoss(Loss{}) }
	for _, c := range []struct {
		name       string
		begin, end func() error
		want       error
	}{
		{"hang, unhang", func() error { return p.Hang(Syncs) }, p.Unhang, nil},
		{"hang, power loss", func() error { return p.Hang(Syncs) }, lose, unix.EIO},
		{"slow, power loss", func() error { return p.Slow(Syncs, time.Hour) }, lose, unix.EIO},
		{"fast again", func() error { return p.Slow(Syncs, 0) }, p.Unhang, nil},
	} {
		must(t, c.begin())
		done := make(chan error, 1)
		go func() { done <- syncPath(filepath.Join(p.Dir, "a")) }()
		if seen := tree(t, p.Dir); !strings.HasPrefix(seen, "a=") { // reads don't wait
			t.Errorf("there is %q", seen)
		}
		if c.want != nil {
			waiting(t, p)
		}
		must(t, c.end())
		if err := <-done; !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		must(t, p.Unhang(), p.PowerOn())
	}
}

// waiting returns when an operation waits for the disk.
func waiting(t *testing.T, p *Process) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s, err := p.Stats()
		must(t, err)
		if s.Waiting > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
}

// TestKillTheHung holds that a process can be killed that waits for a hung
// disk, and that what was ordered meanwhile is done.
func TestKillTheHung(t *testing.T) {
	p := mounted(t)
	script(t, p.Dir, "write a 1\nsync a\nsync .")
	must(t, p.Hang(All))
	cat := exec.Command("cat", filepath.Join(p.Dir, "a"))
	must(t, cat.Start())
	waiting(t, p)
	_, err := p.FlipBit("a", 1)
	must(t, err, cat.Process.Kill())
	_ = cat.Wait() // killed
	must(t, p.Unhang())
	if seen := tree(t, p.Dir); seen == "a=1" {
		t.Error("the flipped bit is not seen")
	}
}

// TestDamage flips and cuts what is durable, and readers see it.
func TestDamage(t *testing.T) {
	p := mounted(t)
	whole := strings.Repeat("0123456789abcdef", 1024)
	for i := range 3 {
		name := fmt.Sprintf("f-%d", i)
		script(t, p.Dir, "write "+name+" "+whole+"\nsync "+name+"\nsync .")
	}
	must(t, os.WriteFile(filepath.Join(p.Dir, "other"), []byte(whole), 0o644))
	flip, err := p.FlipBit("f-*", 7)
	must(t, err)
	text, err := os.ReadFile(filepath.Join(p.Dir, flip.Path))
	must(t, err)
	differs := 0
	for i := range text {
		if text[i] != whole[i] {
			differs++
			if int64(i) != flip.Offset || text[i]^whole[i] != 1<<flip.Bit {
				t.Errorf("byte %d differs, flipped was %+v", i, flip)
			}
		}
	}
	if differs != 1 || len(text) != len(whole) {
		t.Errorf("%d bytes of %d differ", differs, len(text))
	}
	// The same without power, which flips it back.
	must(t, p.PowerLoss(Loss{}))
	same, err := p.FlipBit("f-*", 7)
	must(t, err, p.PowerOn())
	text, err = os.ReadFile(filepath.Join(p.Dir, flip.Path))
	must(t, err)
	if same != flip || string(text) != whole {
		t.Errorf("the seed chooses %+v, and then %+v", flip, same)
	}
	cut, err := p.CutFile("f-*", 8)
	must(t, err)
	info, err := os.Stat(filepath.Join(p.Dir, cut.Path))
	must(t, err)
	if info.Size() != cut.New || cut.New >= int64(len(whole)) {
		t.Errorf("%d bytes are left, cut was %+v", info.Size(), cut)
	}
	if _, err := p.FlipBit("other", 1); err == nil {
		t.Error("a bit was flipped that is not durable")
	}
	if _, err := p.FlipBit("f-9", 1); err == nil {
		t.Error("a bit was flipped of a file that there is not")
	}
}
