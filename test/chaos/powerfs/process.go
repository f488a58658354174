package powerfs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ready is what Run says on its output when the mount serves.
const ready = "mounted"

// Run is the program: `powerfs MOUNT BACKING --control SOCKET` serves until
// SIGTERM or SIGINT, or until it is unmounted. It gives the exit status.
func Run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("powerfs", flag.ContinueOnError)
	flags.SetOutput(stderr)
	socket := flags.String("control", "", "Unix `SOCKET` to take orders at")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: powerfs MOUNT BACKING [--control SOCKET]")
		flags.PrintDefaults()
	}
	var dirs []string
	for { // flags may stand behind the directories
		if err := flags.Parse(args); err != nil {
			return 2
		}
		if flags.NArg() == 0 {
			break
		}
		dirs, args = append(dirs, flags.Arg(0)), flags.Args()[1:]
	}
	if len(dirs) != 2 {
		flags.Usage()
		return 2
	}
	if err := run(dirs[0], dirs[1], *socket, stdout); err != nil {
		fmt.Fprintln(stderr, "powerfs:", err)
		return 1
	}
	return 0
}

func run(mountPoint, backing, socket string, stdout io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	m, err := New(mountPoint, backing)
	if err != nil {
		return err
	}
	if socket != "" {
		c, err := Listen(m, socket)
		if err != nil {
			return errors.Join(err, m.Close())
		}
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	fmt.Fprintln(stdout, ready)
	select {
	case <-ctx.Done():
		return m.Close()
	case <-m.Gone():
		return m.disk.close()
	}
}

// Process is a mount in a process of its own. It takes orders as Client does.
type Process struct {
	*Client
	Dir     string // where it is mounted
	Backing string

	cmd    *exec.Cmd
	socket string
	exited chan struct{}
}

// Start runs the program, whose main calls Run, on a mount point and a backing
// directory. Errors that match ErrUnavailable are those of Available.
func Start(program, mountPoint, backing string) (*Process, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	// Paths of Unix sockets are short.
	dir, err := os.MkdirTemp("", "powerfs-")
	if err != nil {
		return nil, err
	}
	p := &Process{Dir: mountPoint, Backing: backing, socket: filepath.Join(dir, "control"), exited: make(chan struct{})}
	p.cmd = exec.Command(program, mountPoint, backing, "--control", p.socket)
	p.cmd.Stderr = os.Stderr
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	late := time.AfterFunc(orderTimeout, func() { _ = p.cmd.Process.Kill() })
	said, err := io.ReadAll(io.LimitReader(stdout, int64(len(ready))))
	late.Stop()
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state says it all
	}()
	if err == nil && string(said) == ready {
		if p.Client, err = Dial(p.socket); err == nil {
			return p, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("powerfs does not mount %s", mountPoint)
	}
	return nil, errors.Join(err, p.Kill())
}

// Path gives a place for a data directory in the mount. The directory is not
// made: that it is there after a power loss is for its owner to see to.
func (p *Process) Path() string { return filepath.Join(p.Dir, "data") }

// Close ends the process in order: everything becomes durable. No file of the
// mount may be open.
func (p *Process) Close() error {
	err := errors.Join(p.Client.Close(), p.cmd.Process.Signal(syscall.SIGTERM))
	late := time.NewTimer(orderTimeout)
	defer late.Stop()
	select {
	case <-p.exited:
	case <-late.C:
		return errors.Join(err, errors.New("powerfs does not end: a file is still open"), p.Kill())
	}
	err = errors.Join(err, os.RemoveAll(filepath.Dir(p.socket)))
	if state := p.cmd.ProcessState; !state.Success() {
		err = errors.Join(err, fmt.Errorf("powerfs: %s", strings.TrimSpace(state.String())))
	}
	return err
}

// Kill ends the process at once, and unmounts what it has left. What was not
// synced is lost; whoever has files of it open gets errors.
func (p *Process) Kill() error {
	if p.Client != nil {
		_ = p.Client.Close() // nothing is under way that counts
	}
	_ = p.cmd.Process.Kill() // has ended already, perhaps
	<-p.exited
	err := syscall.Unmount(p.Dir, syscall.MNT_DETACH)
	if err == syscall.EINVAL {
		err = nil // nothing was mounted
	}
	return errors.Join(err, os.RemoveAll(filepath.Dir(p.socket)))
}
