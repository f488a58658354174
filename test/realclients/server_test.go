package realclients

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// server is a running `shardstream dev`.
type server struct {
	*process
	endpoint string // URL
	trust    string // the certificate's file, "" without TLS
}

// startServer runs dev on free ports. Every request has to be signed, by
// clientEnv's key. Streams change their state within 100 ms.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{}
	keys := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(keys, fmt.Appendf(nil, "keys:\n  - access-key: %s\n    secret-key: %s\n", accessKey, secretKey), 0o600); err != nil {
		t.Fatal(err)
	}
	serving := make(chan struct{})
	var once sync.Once
	args = append([]string{program, "dev", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--transition-delay", "100ms", "--auth", "sigv4", "--credentials", keys}, args...)
	s.process = launch(t, "shardstream", clientEnv(), func(line string) {
		if v, ok := strings.CutPrefix(line, "endpoint: "); ok {
			s.endpoint = strings.TrimSpace(v)
		}
		if v, ok := strings.CutPrefix(line, "trust: "); ok {
			s.trust = strings.TrimSpace(v)
		}
		if strings.HasPrefix(line, "Ctrl-C") {
			once.Do(func() { close(serving) })
		}
	}, args...)
	select {
	case <-serving:
	case <-s.exited:
		t.Fatalf("dev ended with status %d:\n%s", s.status, s.tail())
	}
	return s
}

// client gives the test's own view of the server, by the Go SDK.
func (s *server) client(t *testing.T) *kinesis.Client {
	t.Helper()
	options := kinesis.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(s.endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	}
	if s.trust != "" {
		certificate, err := os.ReadFile(s.trust)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(certificate)
		options.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
			tr.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		})
	}
	return kinesis.New(options)
}

// createStream creates a stream and waits until it is ACTIVE.
func createStream(t *testing.T, c *kinesis.Client, name string, shards int32) {
	t.Helper()
	if _, err := c.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, name)
}

func awaitActive(t *testing.T, c *kinesis.Client, name string) {
	t.Helper()
	eventually(t, func() error {
		out, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &name})
		if err != nil {
			return err
		}
		if status := out.StreamDescriptionSummary.StreamStatus; status != types.StreamStatusActive {
			return fmt.Errorf("the stream is %s", status)
		}
		return nil
	})
}

// listShards gives the open and the closed shards of a stream.
func listShards(t *testing.T, c *kinesis.Client, name string) (open, closed []string) {
	t.Helper()
	out, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &name})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range out.Shards {
		if s.SequenceNumberRange.EndingSequenceNumber == nil {
			open = append(open, *s.ShardId)
		} else {
			closed = append(closed, *s.ShardId)
		}
	}
	return open, closed
}
