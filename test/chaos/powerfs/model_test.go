package powerfs

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// modelFile is a file's content, and what of it a power loss must leave.
type modelFile struct{ now, synced []byte }

// modelDir is a directory of files: what is durable, and what came then.
type modelDir struct {
	durable, now map[string]*modelFile
	ops          []*modelOp
}

type modelOp struct {
	dir    *modelDir
	name   string
	to     *modelFile
	joined bool     // with the op before
	twin   *modelOp // in another directory
}

func (d *modelDir) change(name string, to *modelFile) *modelOp {
	op := &modelOp{dir: d, name: name, to: to}
	d.ops = append(d.ops, op)
	set(d.now, name, to)
	return op
}

func set(names map[string]*modelFile, name string, f *modelFile) {
	delete(names, name)
	if f != nil {
		names[name] = f
	}
}

func (d *modelDir) sync() {
	for _, op := range d.ops {
		if twin := op.twin; twin != nil {
			other := twin.dir
			set(other.durable, twin.name, twin.to)
			at := slices.Index(other.ops, twin)
			other.ops = append(slices.DeleteFunc(slices.Clone(other.ops[:at]), func(o *modelOp) bool {
				if o.name == twin.name && o.twin != nil {
					o.twin.twin = nil
				}
				return o.name == twin.name
			}), other.ops[at+1:]...)
			twin.twin = nil
		}
	}
	d.durable, d.ops = maps.Clone(d.now), nil
}

// states gives all that a power loss may leave of the directory.
func (d *modelDir) states() []map[string]*modelFile {
	all := []map[string]*modelFile{maps.Clone(d.durable)}
	state := maps.Clone(d.durable)
	for i, op := range d.ops {
		set(state, op.name, op.to)
		if i+1 == len(d.ops) || !d.ops[i+1].joined {
			all = append(all, maps.Clone(state))
		}
	}
	return all
}

// model runs beside the mount.
type model struct {
	t    *rapid.T
	p    *Process
	path string
	dirs map[string]*modelDir
}

func (m *model) ok(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) dir() (string, *modelDir) {
	name := rapid.SampledFrom([]string{"d", "e"}).Draw(m.t, "directory")
	return filepath.Join(m.path, name), m.dirs[name]
}

func (m *model) name() string { return rapid.SampledFrom([]string{"x", "y", "z"}).Draw(m.t, "name") }

// existing draws a file that there is.
func (m *model) existing() (string, *modelDir, string, *modelFile) {
	at, d := m.dir()
	if len(d.now) == 0 {
		m.t.Skip("an empty directory")
	}
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(d.now))).Draw(m.t, "file")
	return filepath.Join(at, name), d, name, d.now[name]
}

func (m *model) create(*rapid.T) {
	at, d := m.dir()
	name := m.name()
	f, err := os.OpenFile(filepath.Join(at, name), os.O_CREATE|os.O_RDWR, 0o644)
	m.ok(err)
	m.ok(f.Close())
	if d.now[name] == nil {
		d.change(name, &modelFile{})
	}
}

func (m *model) write(*rapid.T) {
	at, _, _, file := m.existing()
	p := bytes.Repeat([]byte{rapid.Byte().Draw(m.t, "fill")}, rapid.IntRange(1, 2*blockSize).Draw(m.t, "length"))
	off := rapid.IntRange(0, 3*blockSize).Draw(m.t, "offset")
	f, err := os.OpenFile(at, os.O_RDWR, 0)
	m.ok(err)
	_, err = f.WriteAt(p, int64(off))
	m.ok(err)
	m.ok(f.Close())
	file.now = written(file.now, p, off)
}

func (m *model) truncate(*rapid.T) {
	at, _, _, file := m.existing()
	size := rapid.IntRange(0, 3*blockSize).Draw(m.t, "size")
	m.ok(os.Truncate(at, int64(size)))
	file.now = truncated(file.now, size)
}

func (m *model) sync(*rapid.T) {
	at, _, _, file := m.existing()
	m.ok(syncPath(at))
	file.synced = file.now
}

func (m *model) syncDir(*rapid.T) {
	at, d := m.dir()
	m.ok(syncPath(at))
	d.sync()
}

func (m *model) remove(*rapid.T) {
	at, d, name, _ := m.existing()
	m.ok(os.Remove(at))
	d.change(name, nil)
}

func (m *model) rename(*rapid.T) {
	at, from, name, file := m.existing()
	toDir, to := m.dir()
	newName := m.name()
	m.ok(os.Rename(at, filepath.Join(toDir, newName)))
	if to.now[newName] == file {
		return // the same file: nothing happens, if by two names
	}
	arrival := to.change(newName, file)
	departure := from.change(name, nil)
	if from == to {
		departure.joined = true
	} else {
		arrival.twin, departure.twin = departure, arrival
	}
}

// seenFile is a file as a reader finds it.
type seenFile struct {
	data  []byte
	inode uint64
}

// look reads everything.
func (m *model) look() map[string]map[string]seenFile {
	seen := map[string]map[string]seenFile{}
	for name := range m.dirs {
		seen[name] = map[string]seenFile{}
		entries, err := os.ReadDir(filepath.Join(m.path, name))
		m.ok(err)
		for _, e := range entries {
			info, err := e.Info()
			m.ok(err)
			data, err := os.ReadFile(filepath.Join(m.path, name, e.Name()))
			m.ok(err)
			seen[name][e.Name()] = seenFile{data, info.Sys().(*syscall.Stat_t).Ino}
		}
	}
	return seen
}

func (m *model) check(*rapid.T) {
	for name, files := range m.look() {
		if wrong := differs(files, m.dirs[name].now, func(got []byte, f *modelFile) string {
			if !bytes.Equal(got, f.now) {
				return "is not what was written"
			}
			return ""
		}); wrong != "" {
			m.t.Fatalf("%s: %s", name, wrong)
		}
	}
}

// differs says why a directory isn't in a state.
func differs(seen map[string]seenFile, state map[string]*modelFile, file func([]byte, *modelFile) string) string {
	for name := range state {
		if _, there := seen[name]; !there {
			return name + " is not there"
		}
	}
	for name, got := range seen {
		if state[name] == nil {
			return name + " should not be there"
		}
		if wrong := file(got.data, state[name]); wrong != "" {
			return name + ": " + wrong
		}
	}
	return ""
}

// powerLoss loses power, and goes on with what is left if that may be.
func (m *model) powerLoss(t *rapid.T) {
	loss := Loss{Torn: rapid.Bool().Draw(t, "torn"), Seed: rapid.Uint64().Draw(t, "seed")}
	m.ok(m.p.PowerLoss(loss))
	m.ok(m.p.PowerOn())
	left := m.look()
	allowed := func(got []byte, f *modelFile) string {
		if loss.Torn {
			return torn(got, f.now, f.synced)
		}
		if !bytes.Equal(got, f.synced) {
			return "is not what was synced"
		}
		return ""
	}
	for name, d := range m.dirs {
		states := d.states()
		if !loss.Torn {
			states = states[:1]
		}
		var why []string
		found := false
		for i, state := range states {
			wrong := differs(left[name], state, allowed)
			if wrong == "" {
				found = true
				break
			}
			why = append(why, fmt.Sprintf("after %d changes: %s", i, wrong))
		}
		if !found {
			m.t.Fatalf("%s: no state that may be left: %v", name, why)
		}
	}
	// Which of several possible states it is does not matter: what there is
	// tells all. A rename across directories may have left a file in both.
	files := map[uint64]*modelFile{}
	for name, d := range m.dirs {
		d.now, d.ops = map[string]*modelFile{}, nil
		for file, seen := range left[name] {
			if files[seen.inode] == nil {
				files[seen.inode] = &modelFile{seen.data, seen.data}
			}
			d.now[file] = files[seen.inode]
		}
		d.durable = maps.Clone(d.now)
	}
}

// TestModel runs random operations beside a model: programs see what they
// wrote, what was synced is there after a power loss, and what was not is there
// or not, each sector old or new.
func TestModel(t *testing.T) {
	p := mounted(t)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		m := &model{t: t, p: p, path: filepath.Join(p.Dir, fmt.Sprint(round)), dirs: map[string]*modelDir{}}
		m.ok(os.Mkdir(m.path, 0o755))
		m.ok(syncPath(p.Dir))
		for _, name := range []string{"d", "e"} {
			m.ok(os.Mkdir(filepath.Join(m.path, name), 0o755))
			m.dirs[name] = &modelDir{durable: map[string]*modelFile{}, now: map[string]*modelFile{}}
		}
		m.ok(syncPath(m.path))
		defer func() { m.ok(os.RemoveAll(m.path)) }()
		t.Repeat(map[string]func(*rapid.T){
			"create": m.create, "write": m.write, "write more": m.write, "truncate": m.truncate, "sync": m.sync,
			"sync directory": m.syncDir, "remove": m.remove, "rename": m.rename, "rename again": m.rename,
			"power loss": m.powerLoss, "": m.check,
		})
	})
}
