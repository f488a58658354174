package conformance

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Section 3.6: encryption at rest, on a node with a keyring of the test's.

// material is a key of 32 bytes.
const material = "versions: [{version: 1, material: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]"

var keyed = &node{
	name: "keyed",
	files: map[string]string{"keyring.yaml": strings.Join([]string{
		"default: 11111111-1111-1111-1111-111111111111",
		"keys:",
		"  - {id: 11111111-1111-1111-1111-111111111111, aliases: [orders], state: enabled, " + material + "}",
		"  - {id: switched-JSON, state: enabled, " + material + "}",
		"  - {id: switched-CBOR, state: enabled, " + material + "}",
		"  - {id: off, state: disabled, " + material + "}",
		"  - {id: going, state: pending-deletion, " + material + "}",
		"",
	}, "\n")},
	args: []string{"--transition-delay", "0s", "--kms-keyring", "<dir>/keyring.yaml"},
}

func encryption(key string) m {
	return m{"StreamName": "<S>", "EncryptionType": "KMS", "KeyId": key}
}

// switchKey sets the state of a key of the node's keyring.
func (c *caller) switchKey(key, state string) {
	c.Helper()
	out, err := exec.CommandContext(c.Context(), program, "keyring", "state", filepath.Join(scratch, keyed.name, "keyring.yaml"), key, state).CombinedOutput()
	if err != nil {
		c.Fatalf("%v: %s", err, out)
	}
}

var encryptionRows = []row{
	{"3.6 encryption/each record keeps its type", func(c *caller) {
		c.create(1)
		one := list{m{"PartitionKey": "k", "Data": []byte("2")}}
		put := func(data string, shape, shapes m) {
			c.Helper()
			c.gives("PutRecord", putIn("k", []byte(data), nil), shape)
			c.gives("PutRecords", m{"StreamName": "<S>", "Records": one}, shapes)
		}
		plain := m{"ShardId": shardID(0), "SequenceNumber": aSequence}
		plains := m{"FailedRecordCount": 0, "Records": list{plain}}
		put("1", plain, plains)
		c.empty("StartStreamEncryption", encryption("alias/aws/kinesis"))
		c.active()
		put("1", with(plain, "EncryptionType", "KMS"), with(plains, "EncryptionType", "KMS"))
		c.empty("StopStreamEncryption", encryption("alias/aws/kinesis"))
		c.active()
		put("1", plain, plains)
		record := func(data string) m {
			return m{"SequenceNumber": aSequence, "ApproximateArrivalTimestamp": aTime, "Data": []byte(data), "PartitionKey": "k"}
		}
		encrypted := func(data string) m { return with(record(data), "EncryptionType", "KMS") }
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON")}, some{
			"Records": list{record("1"), record("2"), encrypted("1"), encrypted("2"), record("1"), record("2")},
		})
	}},
	{"3.6 encryption/KeyId as given", func(c *caller) {
		c.create(1)
		const id = "11111111-1111-1111-1111-111111111111"
		for _, key := range []string{
			id, "arn:aws:kms:us-east-1:<A>:key/" + id, "alias/orders", "arn:aws:kms:us-east-1:<A>:alias/orders", "alias/aws/kinesis",
		} {
			c.empty("StartStreamEncryption", encryption(key))
			c.active()
			want := some{"EncryptionType": "KMS", "KeyId": c.text(key)}
			c.want("summary", want, c.summary())
			c.want("description", want, c.ok("DescribeStream", m{"StreamName": "<S>"})["StreamDescription"])
			c.put("k", "x")
		}
		c.empty("StopStreamEncryption", encryption("alias/orders"))
		c.active()
		summary := c.summary()
		c.want("summary", some{"EncryptionType": "NONE"}, summary)
		if got, there := summary["KeyId"]; there {
			c.Errorf("KeyId %v", got)
		}
		if got := c.data(c.read(c.iterator("0", "TRIM_HORIZON"))); got != "x x x x x" {
			c.Errorf("%q", got)
		}
	}},
	{"3.6 encryption/type NONE", func(c *caller) {
		c.create(1)
		for _, op := range []string{"StartStreamEncryption", "StopStreamEncryption"} {
			c.refused(op, with(encryption("alias/orders"), "EncryptionType", "NONE"), invalidArgument, "EncryptionType NONE is not valid for this operation.")
		}
	}},
	{"3.6 KMS errors/of StartStreamEncryption", func(c *caller) {
		c.create(1)
		for key, class := range map[string]string{
			"none": "KMSNotFoundException", "alias/none": "KMSNotFoundException", "off": "KMSDisabledException", "going": "KMSInvalidStateException",
		} {
			c.refusedLike("StartStreamEncryption", encryption(key), class, `.+`)
		}
		c.want("summary", some{"StreamStatus": "ACTIVE", "EncryptionType": "NONE"}, c.summary())
	}},
	{"3.6 KMS errors/of data calls", func(c *caller) {
		key := "switched-" + c.format.name
		c.create(1)
		c.empty("StartStreamEncryption", encryption(key))
		c.active()
		c.put("k", "x")
		at := c.iterator("0", "TRIM_HORIZON")
		for state, class := range map[string]string{"disabled": "KMSDisabledException", "pending-deletion": "KMSInvalidStateException"} {
			c.switchKey(key, state)
			for op, in := range map[string]m{
				"PutRecord":  putIn("k", []byte("x"), nil),
				"PutRecords": {"StreamName": "<S>", "Records": list{m{"PartitionKey": "k", "Data": []byte("x")}}},
				"GetRecords": {"ShardIterator": at},
			} {
				c.eventually(func() error {
					a := c.call(op, in)
					if a.status == 200 || a.body["__type"] != class {
						return fmt.Errorf("%s with a key that is %s: %d %s", op, state, a.status, a.raw)
					}
					c.want(op, m{"__type": class, "message": someText}, a.body)
					return nil
				})
			}
		}
		c.switchKey(key, "enabled")
		c.eventually(func() error {
			if a := c.call("GetRecords", m{"ShardIterator": at}); a.status != 200 {
				return fmt.Errorf("%d %s", a.status, a.raw)
			}
			return nil
		})
	}},
	{"2.5 ends/KMS errors in the stream", func(c *caller) {
		key := "switched-" + c.format.name
		c.create(1)
		c.empty("StartStreamEncryption", encryption(key))
		c.active()
		c.put("k", "x")
		arn := c.consumer("c")
		c.switchKey(key, "disabled")
		defer c.switchKey(key, "enabled")
		c.eventually(func() error {
			if a := c.call("PutRecord", putIn("k", []byte("x"), nil)); a.status == 200 {
				return fmt.Errorf("the key is still in use")
			}
			return nil
		})
		if class, message := c.subscribe(arn, "0", "TRIM_HORIZON", nil).exception(); class != "KMSDisabledException" || message == "" {
			c.Errorf("%s %q", class, message)
		}
	}},
}
