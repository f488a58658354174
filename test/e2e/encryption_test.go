package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// holds tells whether any file below a directory holds the text.
func holds(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// awaitStream waits until a stream is ACTIVE with that encryption.
func awaitStream(t *testing.T, c *kinesis.Client, name string, encryption types.EncryptionType) {
	t.Helper()
	eventually(t, func() error {
		out, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &name})
		if err != nil {
			return err
		}
		if s := out.StreamDescriptionSummary; s.StreamStatus != types.StreamStatusActive || s.EncryptionType != encryption {
			return fmt.Errorf("the stream is %s, encryption %s", s.StreamStatus, s.EncryptionType)
		}
		return nil
	})
}

// TestEncryptionAtRest: the disk of a stream that is encrypted tells nothing, and
// without the keyring nobody can read it. The records from before stay as they were.
func TestEncryptionAtRest(t *testing.T) {
	dir := t.TempDir()
	n := startIn(t, dir, "--transition-delay", "1ms", "--journal-budget", "67108864")
	c := client(n.endpoint)
	name, key, kms := "s", "alias/aws/kinesis", types.EncryptionTypeKms
	createStream(t, c, name, 1)
	want := ""
	put := func(phase string, encryption types.EncryptionType) {
		t.Helper()
		var entries []types.PutRecordsRequestEntry
		for i := range 100 {
			partitionKey := fmt.Sprintf("%s-partition-key-%d", phase, i)
			entries = append(entries, types.PutRecordsRequestEntry{PartitionKey: &partitionKey, Data: fmt.Appendf(nil, "%s-data-%d", phase, i)})
			want += string(entries[i].Data) + " " + string(encryption) + "\n"
		}
		out, err := c.PutRecords(t.Context(), &kinesis.PutRecordsInput{StreamName: &name, Records: entries})
		if err != nil || *out.FailedRecordCount != 0 || out.EncryptionType != encryption {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	read := func() (string, error) {
		it, err := c.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{StreamName: &name, ShardId: new("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
		if err != nil {
			return "", err
		}
		got, next := "", it.ShardIterator
		for {
			out, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			if err != nil {
				return "", err
			}
			for _, r := range out.Records {
				got += string(r.Data) + " " + string(r.EncryptionType) + "\n"
			}
			if next = out.NextShardIterator; len(out.Records) == 0 {
				return got, nil
			}
		}
	}
	mustRead := func(when string) {
		t.Helper()
		if got, err := read(); err != nil || got != want {
			t.Fatalf("%s: got %s, want %s, %v", when, got, want, err)
		}
	}

	put("before", "")
	if _, err := c.StartStreamEncryption(t.Context(), &kinesis.StartStreamEncryptionInput{StreamName: &name, KeyId: &key, EncryptionType: kms}); err != nil {
		t.Fatal(err)
	}
	awaitStream(t, c, name, kms)
	put("hidden", kms)
	// Another data key, by another version of the key.
	keyring := filepath.Join(dir, "keyring.yaml")
	if _, stderr, status := shardstream(t, nil, "keyring", "rotate", keyring, key); status != 0 {
		t.Fatal(stderr)
	}
	if _, err := c.StartStreamEncryption(t.Context(), &kinesis.StartStreamEncryptionInput{StreamName: &name, KeyId: &key, EncryptionType: kms}); err != nil {
		t.Fatal(err)
	}
	awaitStream(t, c, name, kms)
	put("rotated", kms)
	if _, err := c.StopStreamEncryption(t.Context(), &kinesis.StopStreamEncryptionInput{StreamName: &name, KeyId: &key, EncryptionType: kms}); err != nil {
		t.Fatal(err)
	}
	awaitStream(t, c, name, types.EncryptionTypeNone)
	put("after", "")
	mustRead("at first")

	// In the journal, and in segments after a clean stop.
	for _, end := range []func(){func() { n.kill(t) }, func() {
		if status := n.stop(t, syscall.SIGTERM); status != 0 {
			t.Fatalf("status %d", status)
		}
	}} {
		end()
		for _, phase := range []string{"before", "hidden", "rotated", "after"} {
			for _, text := range []string{phase + "-data", phase + "-partition-key"} {
				if plain := phase == "before" || phase == "after"; holds(t, dir, text) != plain {
					t.Errorf("%s is on the disk: %v", text, !plain)
				}
			}
		}
		n.restart(t)
		mustRead("after a restart")
	}

	// A key that is disabled, a keyring that is away.
	c = client(n.endpoint, once)
	set := func(state string) {
		t.Helper()
		if _, stderr, status := shardstream(t, nil, "keyring", "state", keyring, key, state); status != 0 {
			t.Fatal(stderr)
		}
	}
	refused := func(code string) {
		t.Helper()
		eventually(t, func() error {
			_, err := c.StartStreamEncryption(t.Context(), &kinesis.StartStreamEncryptionInput{StreamName: &name, KeyId: &key, EncryptionType: kms})
			if got := codeOf(err); got != code {
				return fmt.Errorf("starting: %s instead of %s", got, code)
			}
			if got, err := read(); codeOf(err) != code {
				return fmt.Errorf("reading: %w instead of %s; read %d bytes", err, code, len(got))
			}
			return nil
		})
	}
	set("disabled")
	refused("KMSDisabledException")
	set("pending-deletion")
	refused("KMSInvalidStateException")
	set("enabled")
	eventually(t, func() error { _, err := read(); return err })
	mustRead("enabled again")
	aside := filepath.Join(t.TempDir(), "keyring.yaml")
	if err := os.Rename(keyring, aside); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		var gone *types.KMSNotFoundException
		if _, err := read(); !errors.As(err, &gone) {
			return fmt.Errorf("without a keyring: %w", err)
		}
		return nil
	})
	if err := os.Rename(aside, keyring); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { _, err := read(); return err })
	mustRead("with its keyring")
	if said := n.text(); strings.Contains(said, "hidden-data") {
		t.Error("the log tells records")
	}
}

// keyService is a service with the API of AWS KMS: one key, which turns bits.
type keyService struct{ disabled atomic.Bool }

func (s *keyService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct{ CiphertextBlob []byte }
	_ = json.NewDecoder(r.Body).Decode(&in)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if s.disabled.Load() {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"DisabledException","message":"the key is disabled."}`)
		return
	}
	plain := bytes.Repeat([]byte{7}, 32)
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".Decrypt") {
		plain = in.CiphertextBlob
		for i := range plain {
			plain[i] ^= 0xff
		}
	}
	wrapped := bytes.Clone(plain)
	for i := range wrapped {
		wrapped[i] ^= 0xff
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": "k", "Plaintext": plain, "CiphertextBlob": wrapped})
}

// TestKeysOfAService: a gateway that knows a key goes on with it, a new one is
// refused.
func TestKeysOfAService(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	service := &keyService{}
	server := httptest.NewServer(service)
	t.Cleanup(server.Close)
	n := startIn(t, t.TempDir(), "--transition-delay", "0s", "--kms-endpoint", server.URL, "--kms-region", "eu-central-1", "--stream", "s")
	c := client(n.endpoint, once)
	name := "s"
	if _, err := c.StartStreamEncryption(t.Context(), &kinesis.StartStreamEncryptionInput{StreamName: &name, KeyId: new("alias/k"), EncryptionType: types.EncryptionTypeKms}); err != nil {
		t.Fatal(err)
	}
	awaitStream(t, c, name, types.EncryptionTypeKms)
	put := func() (types.EncryptionType, error) {
		out, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: &name, PartitionKey: new("k"), Data: []byte("x")})
		if err != nil {
			return "", err
		}
		return out.EncryptionType, nil
	}
	if got, err := put(); err != nil || got != types.EncryptionTypeKms {
		t.Fatal(got, err)
	}
	service.disabled.Store(true)
	if _, err := put(); err != nil {
		t.Errorf("with a key at hand: %v", err)
	}
	n.kill(t)
	n.restart(t)
	if _, err := put(); codeOf(err) != "KMSDisabledException" {
		t.Errorf("without a key: %v", err)
	}
	service.disabled.Store(false)
	eventually(t, func() error { _, err := put(); return err })
}
