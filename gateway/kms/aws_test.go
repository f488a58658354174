package kms

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"shardstream/stream"
)

// fakeKMS is a key service over HTTP with one key, which wraps by turning bits.
type fakeKMS struct {
	t      *testing.T
	refuse string // code of the error that answers the next call, "" for none
	seen   []string
}

type kmsRequest struct {
	KeyId, KeySpec    string
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

func (f *fakeKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in kmsRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		f.t.Error(err)
	}
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	auth := r.Header.Get("Authorization")
	f.seen = append(f.seen, operation)
	if !strings.Contains(auth, "Credential=id/") || !strings.Contains(auth, "/eu-central-1/kms/aws4_request") {
		f.t.Errorf("signed as %s", auth)
	}
	if got := fmt.Sprint(in.EncryptionContext); got != "map[shardstream:cluster:c shardstream:stream:s]" {
		f.t.Errorf("context %s", got)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if f.refuse != "" {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"__type":%q,"message":"because"}`, f.refuse)
		return
	}
	turned := func(b []byte) []byte {
		out := bytes.Clone(b)
		for i := range out {
			out[i] ^= 0xff
		}
		return out
	}
	switch operation {
	case "GenerateDataKey":
		if in.KeyId != "alias/orders" || in.KeySpec != "AES_256" {
			f.t.Errorf("%+v", in)
		}
		plain := bytes.Repeat([]byte{7}, KeySize)
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": "arn", "Plaintext": plain, "CiphertextBlob": turned(plain)})
	case "Decrypt":
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": "arn", "Plaintext": turned(in.CiphertextBlob)})
	default:
		f.t.Errorf("call of %s", operation)
	}
}

func openFakeKMS(t *testing.T) (*fakeKMS, *AWS) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	f := &fakeKMS{t: t}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	a, err := OpenAWS(t.Context(), server.URL, "eu-central-1")
	if err != nil {
		t.Fatal(err)
	}
	return f, a
}

func TestAWSWrapsAndUnwraps(t *testing.T) {
	f, a := openFakeKMS(t)
	c := Context{Cluster: "c", Stream: "s"}
	plain, wrapped, err := a.GenerateDataKey(t.Context(), "alias/orders", c)
	if err != nil || len(plain) != KeySize || bytes.Equal(plain, wrapped) {
		t.Fatalf("%x, %x, %v", plain, wrapped, err)
	}
	if got, err := a.Unwrap(t.Context(), "alias/orders", wrapped, c); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%x, %v", got, err)
	}
	if got := strings.Join(f.seen, " "); got != "GenerateDataKey Decrypt" {
		t.Error(got)
	}
}

func TestAWSRefusals(t *testing.T) {
	f, a := openFakeKMS(t)
	c := Context{Cluster: "c", Stream: "s"}
	for code, want := range map[string]Reason{
		"DisabledException": Disabled, "KMSInvalidStateException": InvalidState, "InvalidKeyUsageException": InvalidState,
		"AccessDeniedException": AccessDenied, "UnrecognizedClientException": AccessDenied, "ExpiredTokenException": AccessDenied,
		"NotFoundException": NotFound, "InvalidArnException": NotFound, "OptInRequired": OptInRequired,
		"ThrottlingException": Throttled, "LimitExceededException": Throttled,
		// Not about the key: the service is in trouble.
		"KMSInternalException": 0, "DependencyTimeoutException": 0, "KeyUnavailableException": 0,
	} {
		f.refuse = code
		_, _, generating := a.GenerateDataKey(t.Context(), "alias/orders", c)
		_, unwrapping := a.Unwrap(t.Context(), "alias/orders", []byte("x"), c)
		for _, err := range []error{generating, unwrapping} {
			var refused *Error
			if errors.As(err, &refused) != (want != 0) || want != 0 && (refused.Reason != want || refused.Message != "because") {
				t.Errorf("%s: %v", code, err)
			}
			if errors.As(kinded(err), &refused); want == 0 && (refused == nil || refused.Reason != Unreachable) {
				t.Errorf("%s: %v", code, kinded(err))
			}
		}
	}
	f.refuse = "InvalidCiphertextException"
	if _, err := a.Unwrap(t.Context(), "", []byte("x"), c); !errors.Is(err, stream.Corrupt) {
		t.Errorf("what the service has not wrapped: %v", err)
	}
}

func TestAWSNeedsARegion(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	if _, err := OpenAWS(t.Context(), AWSEndpoint, ""); err == nil || !strings.Contains(err.Error(), "--kms-region") {
		t.Error(err)
	}
	if _, err := OpenAWS(t.Context(), "http://127.0.0.1:1", ""); err != nil {
		t.Error(err)
	}
}
