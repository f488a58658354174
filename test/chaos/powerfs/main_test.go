package powerfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// roleVar makes the test program another one: what serves a mount, or has files
// of it mapped, must be a process of its own.
const roleVar = "SHARDSTREAM_POWERFS_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "bbolt":
		os.Exit(commitForEver(os.Args[1]))
	case "powerfs":
		os.Exit(Run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// mounted starts a mount in a process of its own.
func mounted(t testing.TB) *Process {
	t.Helper()
	dir := t.TempDir()
	mountPoint, backing := filepath.Join(dir, "mount"), filepath.Join(dir, "platter")
	must(t, os.Mkdir(mountPoint, 0o755), os.Mkdir(backing, 0o755))
	return startOn(t, mountPoint, backing)
}

func startOn(t testing.TB, mountPoint, backing string) *Process {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	t.Setenv(roleVar, "powerfs")
	p, err := Start(self, mountPoint, backing)
	if errors.Is(err, ErrUnavailable) {
		t.Skipf("SKIPPED: %v", err)
	}
	must(t, err)
	t.Cleanup(func() {
		select {
		case <-p.exited:
			must(t, p.Kill()) // for its mount
		default:
			must(t, p.Close())
		}
	})
	return p
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func syncDir(t testing.TB, dir string) {
	t.Helper()
	must(t, syncPath(dir))
}

// syncPath is fsync of what a path names.
func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// crash loses power and comes back.
func crash(t testing.TB, p *Process, loss Loss) {
	t.Helper()
	must(t, p.PowerLoss(loss), p.PowerOn())
}
