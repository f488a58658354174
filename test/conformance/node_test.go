package conformance

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// node is a `shardstream dev` that is started when the first row needs it, and
// shared by all rows of its kind.
type node struct {
	name  string
	args  []string          // <dir> in them is where the files are
	files map[string]string // what has to be there at the start
	// run is for nodes inside the test: it serves until stop is called.
	run     func(dir string) (endpoint string, stop func(), err error)
	patient bool // its clients make calls again that came too fast

	once     sync.Once
	failure  error  // of the start
	endpoint string // http://127.0.0.1:PORT
	stop     func() // of nodes with run
	cmd      *exec.Cmd
	log      *os.File // stderr
	ended    chan struct{}

	mu    sync.Mutex
	taken int // seeds given out
}

// elsewhere is the endpoint of a cluster that takes the place of the plain node.
var elsewhere = os.Getenv("SHARDSTREAM_CONFORMANCE_ENDPOINT")

// seeds is how many streams a node with seeds has, each with two shards.
const seeds = 100

var (
	// plain goes through its transitions as fast as it can.
	plain = &node{name: "plain", args: []string{"--transition-delay", "0s"}}
	// slow keeps streams CREATING, UPDATING and DELETING for a minute. Its seeds
	// are ACTIVE from the start.
	slow = &node{name: "slow", args: append([]string{"--transition-delay", "1m"}, seedArgs()...)}
	// account is for rows that see all streams of the account. They run one by one.
	account = &node{name: "account", args: []string{"--transition-delay", "0s"}}

	nodes = []*node{plain, slow, account, clocked, guarded, keyed, metered, limited, withCommitment, crowded, secure}
)

func seedArgs() (args []string) {
	for i := range seeds {
		args = append(args, "--stream", seedName(i)+":2")
	}
	return args
}

func seedName(i int) string { return fmt.Sprintf("seed-%d", i) }

// seed gives a stream that no other row has. It is there from the start.
func (n *node) seed(t *testing.T) string {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.taken == seeds {
		t.Fatalf("more than %d rows need a seed of the %s node", seeds, n.name)
	}
	n.taken++
	return seedName(n.taken - 1)
}

// url gives the node's endpoint, and starts the node first if need be.
func (n *node) url(t *testing.T) string {
	t.Helper()
	if n == plain && elsewhere != "" {
		return elsewhere
	}
	if n.once.Do(func() { n.failure = n.start() }); n.failure != nil {
		t.Fatalf("the %s node: %v", n.name, n.failure)
	}
	return n.endpoint
}

func (n *node) start() error {
	if n.run != nil {
		var err error
		n.endpoint, n.stop, err = n.run(filepath.Join(scratch, n.name))
		return err
	}
	var err error
	if n.log, err = os.Create(filepath.Join(scratch, n.name+".log")); err != nil {
		return err
	}
	dir := filepath.Join(scratch, n.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, content := range n.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	args := append([]string{
		"dev", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--log-level", "warn",
	}, n.args...)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "<dir>", dir)
	}
	n.cmd = exec.Command(program, args...)
	n.cmd.Stderr = n.log
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	endpoint := make(chan string, 1)
	n.ended = make(chan struct{})
	go func() { // ends with the process, and stop waits for it
		defer close(n.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if url, ok := strings.CutPrefix(lines.Text(), "endpoint: "); ok {
				endpoint <- strings.TrimSpace(url)
			}
		}
		_ = n.cmd.Wait() // how it ended is in its log
	}()
	select {
	case n.endpoint = <-endpoint:
		return nil
	case <-n.ended:
		said, _ := os.ReadFile(n.log.Name())
		return fmt.Errorf("ended before it served: %s", said)
	case <-time.After(patience):
		return fmt.Errorf("does not serve")
	}
}

func stopNodes() {
	for _, n := range nodes {
		if n.stop != nil {
			n.stop()
		}
		if n.ended != nil {
			_ = n.cmd.Process.Kill() // may have ended
			<-n.ended
			n.log.Close()
		}
	}
}
