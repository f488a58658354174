package realclients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// dynamo is a running stand-in for DynamoDB, in which the KCL keeps its leases.
type dynamo struct{ endpoint string }

// startDynamo runs dynalite.
func startDynamo(t *testing.T, r *row) *dynamo {
	t.Helper()
	r.needs(t, "dynalite")
	d := &dynamo{}
	serving := make(chan struct{})
	var once sync.Once
	p := launch(t, "dynalite", clientEnv(), func(line string) {
		if v, ok := strings.CutPrefix(line, "Dynalite listening at: "); ok {
			d.endpoint = v
			once.Do(func() { close(serving) })
		}
	}, "node", repository("test", "clients", "dynamodb", "serve.js"))
	select {
	case <-serving:
	case <-p.exited:
		t.Fatalf("dynalite ended with status %d:\n%s", p.status, p.tail())
	}
	return d
}

// attributes is an item: by name, by type.
type attributes map[string]map[string]any

// text gives a string attribute, "" if there is none.
func (a attributes) text(name string) string {
	s, _ := a[name]["S"].(string)
	return s
}

// call makes one call. out may be nil.
func (d *dynamo) call(t *testing.T, operation string, in, out any) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.endpoint, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	req.Header.Set("X-Amz-Date", "20260101T000000Z")
	// The stand-in wants a header of this form, and checks no signature.
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+accessKey+"/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(answer, out)
	}
	if err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
}

// items gives all items of a small table.
func (d *dynamo) items(t *testing.T, table string) []attributes {
	t.Helper()
	var out struct{ Items []attributes }
	d.call(t, "Scan", map[string]any{"TableName": table, "ConsistentRead": true}, &out)
	return out.Items
}

// createLeaseTable makes the KCL 3's table together with the index that it would
// add later on: dynalite adds no index to a table that exists.
func (d *dynamo) createLeaseTable(t *testing.T, name string) {
	t.Helper()
	type m = map[string]any
	d.call(t, "CreateTable", m{
		"TableName": name, "BillingMode": "PAY_PER_REQUEST",
		"AttributeDefinitions": []m{
			{"AttributeName": "leaseKey", "AttributeType": "S"}, {"AttributeName": "leaseOwner", "AttributeType": "S"},
		},
		"KeySchema": []m{{"AttributeName": "leaseKey", "KeyType": "HASH"}},
		"GlobalSecondaryIndexes": []m{{
			"IndexName": "LeaseOwnerToLeaseKeyIndex", "Projection": m{"ProjectionType": "KEYS_ONLY"},
			"KeySchema": []m{{"AttributeName": "leaseOwner", "KeyType": "HASH"}, {"AttributeName": "leaseKey", "KeyType": "RANGE"}},
		}},
	}, nil)
}
