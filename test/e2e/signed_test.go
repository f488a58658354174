package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"
)

// The keys of a node that asks for signatures: one for everything, one that comes
// with a session token, one that may put to a single stream.
const signedKeys = `
keys:
  - {access-key: AKIDADMIN, secret-key: wJalrXUtnFEMI/K7MDENG+admin}
  - {access-key: ASIASESSION, secret-key: session/+secret, session-token: "token+/=="}
  - access-key: AKIDWRITER
    secret-key: writer
    user: writer
    actions: [Put*]
    streams: [orders]
`

var adminEnv = []string{"AWS_ACCESS_KEY_ID=AKIDADMIN", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG+admin"}

// startSigned runs a node that asks for signatures. write replaces its keys.
func startSigned(t *testing.T, args ...string) (n *node, write func(text string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	write = func(text string) {
		t.Helper()
		if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
	}
	write(signedKeys)
	return start(t, append([]string{"--ephemeral", "--auth", "sigv4", "--credentials", path}, args...)...), write
}

// TestSignedBoto3: the whole check of boto3, signed; and what it makes of being
// refused.
func TestSignedBoto3(t *testing.T) {
	python := pythonTool(t, "python")
	n, _ := startSigned(t, "--transition-delay", "100ms")
	runClient(t, n, python, repository("test", "clients", "python", "check.py"), adminEnv...)
	runClient(t, n, python, repository("test", "clients", "python", "refused.py"))
}

// TestSignedJSSDK is as TestSignedBoto3: the SDK signs :authority over HTTP/2.
func TestSignedJSSDK(t *testing.T) {
	node := nodeTool(t)
	n, _ := startSigned(t, "--transition-delay", "100ms")
	runClient(t, n, node, repository("test", "clients", "js", "check.mjs"), adminEnv...)
	runClient(t, n, node, repository("test", "clients", "js", "refused.mjs"))
}

func TestSignedAWSCLI(t *testing.T) {
	cli := pythonTool(t, "aws")
	n, _ := startSigned(t, "--stream", "orders")
	list := func(env ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), cli, "kinesis", "list-streams", "--endpoint-url", n.endpoint)
		cmd.Env = clientEnv(env...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	if out, err := list(adminEnv...); err != nil || !strings.Contains(out, `"orders"`) {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := list(adminEnv[0], "AWS_SECRET_ACCESS_KEY=wrong"); err == nil || !strings.Contains(out, "(InvalidSignatureException)") {
		t.Errorf("a wrong secret: %v: %s", err, out)
	}
	if out, err := list(); err == nil || !strings.Contains(out, "(UnrecognizedClientException)") {
		t.Errorf("an unknown key: %v: %s", err, out)
	}
}

// TestSignedGoSDK: also that a key that is taken out of the file is soon refused.
func TestSignedGoSDK(t *testing.T) {
	n, write := startSigned(t, "--stream", "orders:2", "--stream", "other")
	as := func(access, secret, token string) *kinesis.Client {
		return client(n.endpoint, once, func(o *kinesis.Options) {
			o.Credentials = credentials.NewStaticCredentialsProvider(access, secret, token)
		})
	}
	put := func(c *kinesis.Client, stream string) error {
		_, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: &stream, PartitionKey: aws.String("k"), Data: []byte("x")})
		return err
	}
	mustBe := func(what string, err error, code string) {
		t.Helper()
		var got smithy.APIError
		if code == "" && err != nil || code != "" && (!errors.As(err, &got) || got.ErrorCode() != code) {
			t.Errorf("%s: %v, not %q", what, err, code)
		}
	}
	writer := as("AKIDWRITER", "writer", "")
	mustBe("admin", put(as("AKIDADMIN", "wJalrXUtnFEMI/K7MDENG+admin", ""), "orders"), "")
	mustBe("session", put(as("ASIASESSION", "session/+secret", "token+/=="), "orders"), "")
	mustBe("session without its token", put(as("ASIASESSION", "session/+secret", ""), "orders"), "UnrecognizedClientException")
	mustBe("wrong secret", put(as("AKIDADMIN", "wrong", ""), "orders"), "InvalidSignatureException")
	mustBe("unknown key", put(as("dev", "dev", ""), "orders"), "UnrecognizedClientException")
	mustBe("writer", put(writer, "orders"), "")
	mustBe("writer elsewhere", put(writer, "other"), "AccessDeniedException")
	_, err := writer.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
	mustBe("writer reads", err, "AccessDeniedException")

	write("keys: []")
	eventually(t, func() error {
		if put(writer, "orders") == nil {
			return errors.New("the key is still good")
		}
		return nil
	})
	mustBe("taken out", put(writer, "orders"), "UnrecognizedClientException")
}
