//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"shardstream/test/chaos/network"
)

// Process is a process of the program on a host, through all of its lives.
type Process struct {
	Name string
	Host *network.Host
	Log  string // file; what all lives say

	program string
	args    []string
	env     []string
	ready   string // URL that answers 200 once it serves
	client  *http.Client

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the present life has ended
	running bool          // should run: an end is a surprise
	crashes []string      // surprises
}

// Start starts the next life.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		return fmt.Errorf("%s runs", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- started %s\n", time.Now().UTC().Format(time.RFC3339Nano))
	cmd := exec.Command(p.program, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	if err := p.Host.Start(cmd); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.running = cmd, exited, true
	go func() { // ends with the process
		defer close(exited)
		err := cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.running && p.cmd == cmd {
			p.running = false
			p.crashes = append(p.crashes, fmt.Sprintf("%s ended by itself: %v", p.Name, err))
		}
	}()
	return nil
}

// Use has the next life run another binary.
func (p *Process) Use(program string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.program = program
}

// Kill ends the process with SIGKILL, and returns when it is gone. It does
// nothing to one that does not run.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop asks the process to end and waits for it; after the context's end it is
// killed, and that is an error, as is another exit status than 0.
func (p *Process) Stop(ctx context.Context) error {
	p.mu.Lock()
	cmd, exited, was := p.cmd, p.exited, p.running
	p.running = false
	p.mu.Unlock()
	if !was {
		return nil
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("%s ended with status %d after SIGTERM", p.Name, code)
		}
		return nil
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("%s did not end after SIGTERM", p.Name)
	}
}

func (p *Process) end(s syscall.Signal) {
	p.mu.Lock()
	cmd, exited, was := p.cmd, p.exited, p.running
	p.running = false
	p.mu.Unlock()
	if was {
		_ = cmd.Process.Signal(s)
	}
	if exited != nil {
		<-exited
	}
}

// Pause freezes the process until Resume.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		_ = p.cmd.Process.Signal(s)
	}
}

// Running tells whether the process runs.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

// Crashes gives the ends that nobody asked for, and forgets them.
func (p *Process) Crashes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.crashes
	p.crashes = nil
	return c
}

// LastLines gives the end of the log.
func (p *Process) LastLines(n int) string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Ready waits until the process serves.
func (p *Process) Ready(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) error {
		if !p.Running() {
			return fatal{fmt.Errorf("%s does not run", p.Name)}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ready, nil)
		if err != nil {
			return fatal{err}
		}
		resp, err := p.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", p.Name, resp.Status)
		}
		return nil
	})
}

// fatal is an error that no waiting changes.
type fatal struct{ error }

// poll calls check until it succeeds, for what another process does in its own
// time.
func poll(ctx context.Context, check func(context.Context) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := check(one)
		cancel()
		var end fatal
		switch {
		case err == nil:
			return nil
		case errors.As(err, &end):
			return end.error
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
