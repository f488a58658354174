package realclients

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// java gives the command line of a program of a module of test/clients/java. The
// heap is small, and the compiler the quick one: there are several at once.
func java(module, class string, options ...string) []string {
	target := repository("test", "clients", "java", module, "target")
	args := append([]string{"java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}, options...)
	return append(args, "-cp", filepath.Join(target, module+".jar")+":"+filepath.Join(target, "lib", "*"), class)
}

// jarVersion gives the version of a library that a module runs with.
func jarVersion(t *testing.T, module, library string) string {
	t.Helper()
	found, _ := filepath.Glob(repository("test", "clients", "java", module, "target", "lib", library+"-[0-9]*.jar"))
	if len(found) != 1 {
		t.Fatalf("%s: not one jar of %s: %v", module, library, found)
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), library+"-"), ".jar")
}

// trustStore makes a store of Java's own kind of a certificate, and gives the
// options that have a JVM trust it.
func trustStore(t *testing.T, certificate string) []string {
	t.Helper()
	store := filepath.Join(t.TempDir(), "trust.p12")
	out, err := exec.CommandContext(t.Context(), "keytool", "-importcert", "-noprompt", "-alias", "shardstream",
		"-file", certificate, "-keystore", store, "-storepass", "changeit").CombinedOutput()
	if err != nil {
		t.Fatalf("keytool: %v\n%s", err, out)
	}
	return []string{"-Djavax.net.ssl.trustStore=" + store, "-Djavax.net.ssl.trustStorePassword=changeit"}
}

// TestJavaSDK calls every operation with the SDK's blocking and asynchronous
// clients, in both body formats, plain and with TLS, and subscribes to shards.
func TestJavaSDK(t *testing.T) {
	const operations = "all 38 operations that answer once: streams, records, resharding, settings, encryption, tags, policies, consumers, errors"
	const cbor, json = "-Daws.cborEnabled=true", "-Daws.cborEnabled=false"
	all := [][2]string{
		{cbor, "38 operations, [application/x-amz-cbor-1.1]"},
		{json, "38 operations, [application/x-amz-json-1.1]"},
	}
	subscribed := [][2]string{
		{cbor, "[CreateStream, DeleteStream, DescribeStreamConsumer, DescribeStreamSummary, PutRecord, RegisterStreamConsumer, SplitShard, SubscribeToShard]"},
	}
	for _, c := range []struct {
		client, wire, exercised string
		program                 []string
		runs                    [][2]string // each an option, and what the program says with it
	}{
		{"sync", "CBOR and JSON, HTTP/1.1, plain and TLS", operations, []string{"Operations", "sync"}, all},
		{"async", "CBOR and JSON, HTTP/2, plain (h2c) and TLS", operations, []string{"Operations", "async"}, all},
		{
			"async", "CBOR, event stream, HTTP/2, plain (h2c) and TLS", "SubscribeToShard: all that is there and comes, over a split to the children, after a continuation number",
			[]string{"FanOut"},
			subscribed,
		},
	} {
		t.Run(c.client+"-"+c.program[0], func(t *testing.T) {
			r := trial(t, "Java SDK v2, "+c.client, c.wire, c.exercised)
			r.needs(t, "sdk2")
			r.version = jarVersion(t, "sdk2", "kinesis")
			for _, s := range []*server{startServer(t), startServer(t, "--tls")} {
				var options []string
				if s.trust != "" {
					options = trustStore(t, s.trust)
				}
				for _, run := range c.runs {
					said := ""
					p := launch(t, "java", clientEnv("ENDPOINT="+s.endpoint), func(line string) { said += line },
						append(java("sdk2", c.program[0], append(options, run[0])...), c.program[1:]...)...)
					p.await(t)
					if said != run[1] {
						t.Errorf("%s, %s: %q, want %q", s.endpoint, run[0], said, run[1])
					}
				}
			}
		})
	}
}
