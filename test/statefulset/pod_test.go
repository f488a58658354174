//go:build linux

package statefulset

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pod is one process with its namespace, through all of its lives. Its log and
// its disk outlive it.
type pod struct {
	name, file  string // "shardstream-broker-0"; its manifest
	log, disk   string
	readyPort   string
	net         *network
	environment []string

	at     *namespace // of the present life
	cmd    *exec.Cmd
	exited chan struct{} // closed when the present life has ended
}

// start gives the pod a new namespace, and with it a new address, and runs it.
func (p *pod) start(t *testing.T) {
	t.Helper()
	p.at = p.net.plug(t, p.name[strings.LastIndex(p.name, "-")+1:])
	args := manifestArgs(t, p.file, map[string]string{
		"$(POD_NAME)": p.name, "$(POD_IP)": p.at.address, "/var/lib/shardstream/data": p.disk,
	})
	log, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s at %s\n", time.Now().Format(time.RFC3339Nano), p.at.address)
	cmd := p.at.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.environment...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the state says it all
	}()
	p.cmd, p.exited = cmd, exited
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // has ended already, mostly
		<-exited
	})
	if p.file == "broker.yaml" {
		p.net.publish(t, p.at) // with publishNotReadyAddresses, at once
	}
}

// awaitReady waits until the pod's readiness probe succeeds.
func (p *pod) awaitReady(t *testing.T) {
	t.Helper()
	client := p.at.client(5 * time.Second)
	defer client.CloseIdleConnections()
	eventually(t, func() error {
		select {
		case <-p.exited:
			t.Fatalf("%s ended (%s):\n%s", p.name, p.cmd.ProcessState, p.lastLines(20))
		default:
		}
		resp, err := client.Get("http://" + p.at.address + ":" + p.readyPort + "/readyz")
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", p.name, resp.Status)
		}
		return nil
	})
}

// stop deletes the pod as Kubernetes does: SIGTERM, and its address is gone once
// it has ended. It must end by itself within the grace period.
func (p *pod) stop(t *testing.T) time.Duration {
	t.Helper()
	started := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("%s does not end:\n%s", p.name, p.lastLines(20))
	}
	took := time.Since(started)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s ends with status %d after SIGTERM:\n%s", p.name, code, p.lastLines(20))
	}
	p.net.forget(t, p.at)
	p.net.unplug(t, p.at)
	return took
}

// kill takes the pod away with its machine: no good-bye, and its address falls
// silent before the process ends, so that nobody is told of closed connections.
func (p *pod) kill(t *testing.T) {
	t.Helper()
	ip(t, "-n", p.at.name, "link", "set", "eth0", "down")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	<-p.exited
	p.net.forget(t, p.at)
	p.net.unplug(t, p.at)
}

func (p *pod) lastLines(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// cluster is the manifests' pods, and a place for clients.
type cluster struct {
	net     *network
	brokers []*pod
	gateway *pod
	clients *namespace
}

// startCluster starts the pods as they are created: all at once.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	needsNamespaces(t)
	dir := t.TempDir()
	c := &cluster{net: newNetwork(t)}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range append(c.brokers, c.gateway) {
				t.Logf("%s says last:\n%s", p.name, p.lastLines(40))
			}
		}
	})
	c.clients = c.net.plug(t, "clients")
	small := []string{"SHARDSTREAM_JOURNAL_BUDGET=67108864", "SHARDSTREAM_DISK_RESERVE=67108864", "SHARDSTREAM_TRANSITION_DELAY=0s"}
	for i := range 3 {
		name := fmt.Sprintf("%s-%d", service, i)
		c.brokers = append(c.brokers, &pod{
			name: name, file: "broker.yaml", log: filepath.Join(dir, name+".log"), disk: filepath.Join(dir, name),
			readyPort: "7073", net: c.net, environment: small,
		})
	}
	c.gateway = &pod{
		name: "shardstream-gateway", file: "gateway.yaml", log: filepath.Join(dir, "gateway.log"), readyPort: "7083", net: c.net, environment: small,
	}
	for _, p := range c.brokers {
		p.start(t)
	}
	c.gateway.start(t)
	for _, p := range append(c.brokers, c.gateway) {
		p.awaitReady(t)
	}
	c.awaitHealthy(t)
	return c
}

// awaitHealthy waits until `cluster status` finds nothing wrong.
func (c *cluster) awaitHealthy(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := c.clients.command(ctx, "cluster", "status", "--json", "--broker", service+":7070").Output()
		var s struct {
			Healthy  bool
			Findings []struct{ What string }
		}
		if jsonErr := json.Unmarshal(out, &s); jsonErr != nil {
			return fmt.Errorf("cluster status: %w: %s", err, out)
		}
		if !s.Healthy {
			return fmt.Errorf("not healthy: %+v", s.Findings)
		}
		return nil
	})
}
