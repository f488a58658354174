package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// playgroundCmd is `shardstream playground`: a cluster on this machine.
type playgroundCmd struct {
	Nodes         int    `default:"3" placeholder:"N" help:"Brokers (${default})."`
	Dir           string `default:"./shardstream-playground" placeholder:"DIR" help:"Where everything is kept; started again on it, the cluster comes back with its data."`
	BasePort      int    `default:"7100" placeholder:"PORT" help:"Node i listens on this plus 10*i (gRPC), and on the three ports behind (raft, gossip, HTTP) (${default})."`
	GatewayListen string `name:"gateway-listen" default:"127.0.0.1:4567" placeholder:"HOST:PORT" help:"Where the Kinesis API is served. No gateway when empty."`
	Restart       bool   `help:"Start a process that has ended again after a second, as systemd would."`
}

// Help is what `shardstream playground --help` says below its first line.
func (playgroundCmd) Help() string {
	return `Real broker processes on loopback and a gateway in front of them. Kill some, pause some, and look at what happens.
Node i is called node-i; its data, its log and its process id are in DIR/node-i. Ctrl-C stops all.

Examples:
  shardstream playground
  shardstream playground --nodes 5 --dir /tmp/pg --restart
  kill -9 $(cat shardstream-playground/node-2/pid)
  kill -STOP $(cat shardstream-playground/node-1/pid)
  shardstream cluster status --broker 127.0.0.1:7110,127.0.0.1:7120,127.0.0.1:7130 --watch`
}

const (
	playgroundHost = "127.0.0.1"
	maxPlayground  = 50
	stopPatience   = 10 * time.Second // from SIGTERM to SIGKILL
	restartPause   = time.Second
	pollReady      = 50 * time.Millisecond
)

// Run is the command's entry.
func (c *playgroundCmd) Run(e *env) error { return c.run(e.ctx, e.stdout, e.log) }

func (c *playgroundCmd) validate() error {
	switch {
	case c.Nodes < 1 || c.Nodes > maxPlayground:
		return usagef("--nodes %d: want 1 to %d", c.Nodes, maxPlayground)
	case c.BasePort < 1 || c.BasePort+10*c.Nodes+3 > 65535:
		return usagef("--base-port %d: the ports up to %d would be used, and there is none above 65535", c.BasePort, c.BasePort+10*c.Nodes+3)
	}
	return nil
}

// run starts the brokers side by side, then the gateway, says what to type, and
// watches its children until ctx ends. The stop is the reverse.
func (c *playgroundCmd) run(ctx context.Context, out io.Writer, logger *slog.Logger) error {
	if err := c.validate(); err != nil {
		return err
	}
	if err := c.checkPorts(); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("can't find this program's own file: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	release, err := lockPlayground(c.Dir)
	if err != nil {
		return err
	}
	defer release()
	if err := ensureKeyring(c.keyring()); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	s := newSpawner()
	defer s.close()
	nodes := make([]*child, c.Nodes)
	for i := range nodes {
		nodes[i] = c.broker(program, i+1)
	}
	all := nodes
	if c.GatewayListen != "" {
		all = append(all[:len(all):len(all)], c.gateway(program))
	}

	ended := make(chan *child, len(all)) // each child sends once for each of its lives
	defer func() {
		// Clients first, so that they meet brokers until their last request.
		if len(all) > len(nodes) {
			stopAll(all[len(nodes):])
		}
		stopAll(nodes)
	}()
	for _, n := range nodes {
		if err := n.start(s, ended); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "starting %s in %s\n", plural(uint64(c.Nodes), "broker"), c.Dir)
	for _, n := range nodes {
		if err := n.awaitReady(ctx); err != nil {
			return asked(ctx, err)
		}
	}
	for _, n := range all[len(nodes):] {
		if err := n.start(s, ended); err != nil {
			return err
		}
		if err := n.awaitReady(ctx); err != nil {
			return asked(ctx, err)
		}
	}
	c.banner(out, nodes)
	return c.watch(ctx, out, logger, s, ended)
}

// watch reports children that end, and starts them again if that is wanted.
func (c *playgroundCmd) watch(ctx context.Context, out io.Writer, logger *slog.Logger, s *spawner, ended chan *child) error {
	again := make(chan *child)
	var timers sync.WaitGroup
	defer timers.Wait()
	for {
		select {
		case <-ctx.Done():
			fmt.Fprintln(out, "stopping all")
			return nil
		case n := <-ended:
			fmt.Fprintf(out, "%s has ended: %s", n.name, n.how())
			if !c.Restart {
				fmt.Fprintln(out, " (--restart would start it again)")
			} else {
				fmt.Fprintf(out, "; it starts again in %s\n", restartPause)
				timers.Go(func() {
					select {
					case <-ctx.Done():
					case <-time.After(restartPause):
						select {
						case again <- n:
						case <-ctx.Done():
						}
					}
				})
			}
			if lines := n.lastLines(); lines != "" && !n.killed() {
				fmt.Fprintf(out, "its log, %s, ends with:\n%s\n", n.logPath(), lines)
			}
		case n := <-again:
			if err := n.start(s, ended); err != nil {
				logger.Error("can't start it again", "name", n.name, "error", err)
				continue
			}
			fmt.Fprintf(out, "%s runs again, pid %d\n", n.name, n.pid())
		}
	}
}

func (c *playgroundCmd) port(node, offset int) string {
	return net.JoinHostPort(playgroundHost, strconv.Itoa(c.BasePort+10*node+offset))
}

func (c *playgroundCmd) gossipSeeds() string {
	seeds := make([]string, c.Nodes)
	for i := range seeds {
		seeds[i] = c.port(i+1, 2)
	}
	return strings.Join(seeds, ",")
}

func (c *playgroundCmd) brokers() string {
	list := make([]string, c.Nodes)
	for i := range list {
		list[i] = c.port(i+1, 0)
	}
	return strings.Join(list, ",")
}

func (c *playgroundCmd) broker(program string, i int) *child {
	name := fmt.Sprintf("node-%d", i)
	return &child{
		name: name, dir: filepath.Join(c.Dir, name), program: program, ready: "http://" + c.port(i, 3) + "/readyz",
		args: []string{
			"broker", "--node-id", name, "--data-dir", filepath.Join(c.Dir, name),
			"--grpc-listen", c.port(i, 0), "--raft-listen", c.port(i, 1), "--gossip-listen", c.port(i, 2), "--http-listen", c.port(i, 3),
			"--advertise", playgroundHost, "--join", c.gossipSeeds(), "--bootstrap-expect", strconv.Itoa(c.Nodes),
			"--journal-budget", "268435456", "--disk-reserve", "268435456", "--shutdown-timeout", "5s",
		},
	}
}

func (c *playgroundCmd) gateway(program string) *child {
	return &child{
		name: "gateway", dir: filepath.Join(c.Dir, "gateway"), program: program,
		ready: "http://" + reachable(c.GatewayListen) + "/_shardstream/readyz",
		args: []string{
			"gateway", "--listen", c.GatewayListen, "--brokers", c.brokers(), "--kms-keyring", c.keyring(),
			"--http-listen", "", "--shutdown-timeout", "5s",
		},
	}
}

func (c *playgroundCmd) keyring() string { return filepath.Join(c.Dir, "keyring.yaml") }

// reachable gives an address to call for one to listen on.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort(playgroundHost, port)
	}
	return listen
}

// checkPorts finds a taken port before anything is started: the children's logs
// would tell too, but who looks there first?
func (c *playgroundCmd) checkPorts() error {
	var taken []string
	try := func(address string) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			taken = append(taken, address)
			return
		}
		l.Close()
	}
	for i := range c.Nodes {
		for offset := range 4 {
			try(c.port(i+1, offset))
		}
	}
	if len(taken) > 0 {
		return fmt.Errorf("in use already: %s: is another playground running? Stop it, or give another --base-port", strings.Join(taken, ", "))
	}
	if c.GatewayListen != "" {
		l, err := listen("--gateway-listen", c.GatewayListen)
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

// lockPlayground takes the directory for this process.
func lockPlayground(dir string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("--dir %s: another playground runs on it: stop that one, or give another --dir and --base-port", dir)
	}
	return func() { f.Close() }, nil
}

func (c *playgroundCmd) banner(out io.Writer, nodes []*child) {
	fmt.Fprintf(out, "\nShardstream playground: %s on this machine\n\n", plural(uint64(c.Nodes), "broker"))
	for i, n := range nodes {
		fmt.Fprintf(out, "  %-8s pid %-7d  grpc %s  http %s  log %s\n", n.name, n.pid(), c.port(i+1, 0), c.port(i+1, 3), n.logPath())
	}
	fmt.Fprintln(out)
	if c.GatewayListen != "" {
		endpoint := "http://" + reachable(c.GatewayListen)
		fmt.Fprintf(out, "endpoint: %s\n\n", endpoint)
		fmt.Fprintf(out, "In another shell (any credentials do):\n")
		fmt.Fprintf(out, "  export AWS_ACCESS_KEY_ID=dev AWS_SECRET_ACCESS_KEY=dev AWS_DEFAULT_REGION=us-east-1\n")
		fmt.Fprintf(out, "  aws kinesis create-stream --stream-name Foo --shard-count 6 --endpoint-url %s\n", endpoint)
	} else {
		fmt.Fprintf(out, "In another shell:\n")
	}
	fmt.Fprintf(out, "  shardstream cluster status --watch --broker %s\n", c.brokers())
	fmt.Fprintf(out, "  kill -9 $(cat %s)\n\n", filepath.Join(nodes[min(1, len(nodes)-1)].dir, "pid"))
	fmt.Fprintln(out, "Ctrl-C stops all.")
}

// child is one process of the playground, through all of its lives.
type child struct {
	// Set once.
	name    string
	dir     string // has its log and its pid
	program string
	args    []string
	ready   string // URL that answers 200 once it serves

	mu      sync.Mutex
	process *os.Process
	done    chan struct{} // closed when the present process has ended; nil before the first
	state   *os.ProcessState
	stops   bool // it was asked to end
}

func (n *child) logPath() string { return filepath.Join(n.dir, "log") }

// start runs the process. When it ends, and wasn't asked to, ended gets it.
func (n *child) start(s *spawner, ended chan<- *child) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(n.logPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, err := s.start(n.program, n.args, log)
	if err != nil {
		return fmt.Errorf("can't start %s: %w", n.name, err)
	}
	pid := []byte(strconv.Itoa(cmd.Process.Pid) + "\n")
	if err := os.WriteFile(filepath.Join(n.dir, "pid"), pid, 0o644); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	done := make(chan struct{})
	n.mu.Lock()
	n.process, n.done, n.state = cmd.Process, done, nil
	n.mu.Unlock()
	go func() { // ends with the process; stopAll waits for it
		_ = cmd.Wait() // the state says it all
		n.mu.Lock()
		n.state = cmd.ProcessState
		asked := n.stops
		n.mu.Unlock()
		os.Remove(filepath.Join(n.dir, "pid"))
		close(done)
		if !asked {
			ended <- n // has room for one of each, and the next start waits for it
		}
	}()
	return nil
}

func (n *child) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process.Pid
}

// how tells in which way the process ended.
func (n *child) how() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state.String()
}

// killed reports whether a signal ended it: then its log has no more to say.
func (n *child) killed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	status, ok := n.state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// awaitReady waits until the process serves; it fails if it ends before.
func (n *child) awaitReady(ctx context.Context) error {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(pollReady)
	defer ticker.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.ready, nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.done:
			return fmt.Errorf("%s ended before it served (%s); its log, %s, ends with:\n%s", n.name, n.how(), n.logPath(), n.lastLines())
		case <-ticker.C:
		}
	}
}

// lastLines gives the end of the log.
func (n *child) lastLines() string {
	const lines, most = 5, 4 << 10
	f, err := os.Open(n.logPath())
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// stopAll asks the children to end, side by side, and kills those that don't.
func stopAll(children []*child) {
	var stopping sync.WaitGroup
	for _, n := range children {
		n.mu.Lock()
		n.stops = true
		process, done := n.process, n.done
		n.mu.Unlock()
		if done == nil {
			continue
		}
		stopping.Go(func() {
			signalUnlessDone(process, syscall.SIGTERM)
			// A paused process must hear of it too.
			signalUnlessDone(process, syscall.SIGCONT)
			select {
			case <-done:
			case <-time.After(stopPatience):
				signalUnlessDone(process, syscall.SIGKILL)
				<-done
			}
		})
	}
	stopping.Wait()
}

// signalUnlessDone signals a process that may have ended by now.
func signalUnlessDone(p *os.Process, s syscall.Signal) {
	if err := p.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintf(os.Stderr, "shardstream playground: can't signal process %d: %v\n", p.Pid, err)
	}
}
