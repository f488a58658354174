package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBoto3 runs test/clients/python/check.py.
func TestBoto3(t *testing.T) {
	python := pythonTool(t, "python")
	n := start(t, "--ephemeral", "--transition-delay", "100ms")
	runClient(t, n, python, repository("test", "clients", "python", "check.py"))
}

// TestBoto3Throttled runs test/clients/python/throttle.py.
func TestBoto3Throttled(t *testing.T) {
	python := pythonTool(t, "python")
	n := start(t, "--ephemeral", "--transition-delay", "0", "--shard-limits", "aws", "--stream", "s:2")
	runClient(t, n, python, repository("test", "clients", "python", "throttle.py"))
}

// TestBoto3Subscribes runs test/clients/python/subscribe.py.
func TestBoto3Subscribes(t *testing.T) {
	python := pythonTool(t, "python")
	n := start(t, "--ephemeral", "--transition-delay", "0")
	runClient(t, n, python, repository("test", "clients", "python", "subscribe.py"))
}

// TestJSSDK runs test/clients/js/check.mjs. The SDK speaks HTTP/2 without TLS
// and without asking first (h2c by prior knowledge).
func TestJSSDK(t *testing.T) {
	node := nodeTool(t)
	n := start(t, "--ephemeral", "--transition-delay", "100ms")
	runClient(t, n, node, repository("test", "clients", "js", "check.mjs"))
}

// TestJSSDKSubscribes runs test/clients/js/subscribe.mjs.
func TestJSSDKSubscribes(t *testing.T) {
	node := nodeTool(t)
	n := start(t, "--ephemeral", "--transition-delay", "0")
	runClient(t, n, node, repository("test", "clients", "js", "subscribe.mjs"))
}

// nodeTool gives the path of node, with the SDK in reach.
func nodeTool(t *testing.T) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: there is no node")
	}
	if found, _ := filepath.Glob(repository("test", "clients", "js", "node_modules", "@aws-sdk", "client-kinesis", "package.json")); len(found) == 0 {
		missing(t, "the AWS SDK for JavaScript")
	}
	return node
}

// runClient runs a client's script, which ends with status 0 if it is content.
// env changes its environment.
func runClient(t *testing.T, n *node, interpreter, script string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, interpreter, script)
	cmd.Env = clientEnv(append(env, "ENDPOINT="+n.endpoint)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(script), err, out)
	}
	t.Logf("%s", out)
}
