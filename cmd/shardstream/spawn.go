package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
)

// spawner starts child processes that die with this one, where the system can
// see to that. All are started by one goroutine that keeps its thread: Linux
// takes the end of the thread that started a child for the end of its parent.
type spawner struct {
	requests chan func()
	done     sync.WaitGroup
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan func())}
	s.done.Go(func() {
		runtime.LockOSThread()
		for f := range s.requests {
			f()
		}
	})
	return s
}

// close ends the goroutine. Children that still run would be killed by it.
func (s *spawner) close() {
	close(s.requests)
	s.done.Wait()
}

// start runs a program whose output goes to log.
func (s *spawner) start(program string, args []string, log *os.File) (*exec.Cmd, error) {
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	// Settings for this command are no settings for its children.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SHARDSTREAM_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	started := make(chan error)
	s.requests <- func() { started <- cmd.Start() }
	return cmd, <-started
}
