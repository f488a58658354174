package conformance

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row is a row of the reference, and what must hold of it. A name that ends in
// ": more" is one of several tests of a row.
type row struct {
	name string
	test func(*caller)
}

// table is rows that run on one kind of node.
type table struct {
	node   *node
	serial bool // one row at a time
	rows   []row
}

func tables() []table {
	return []table{
		{node: plain, rows: slices.Concat(malformedRows(), wireRows, typeRows(), errorRows, modelRows(), addressRows, goneRows, streamRows, shardRows, tagRows, recordRows, iteratorRows, consumerRows, policyRows, settingsRows, subscribeRows)},
		{node: slow, rows: slices.Concat(stateRows, slowConsumerRows, slowSubscribeRows, transitionRows)},
		{node: account, serial: true, rows: slices.Concat(accountRows, commitmentRows)},
		{node: guarded, rows: signatureRows()},
		{node: clocked, serial: true, rows: clockRows},
	}
}

// TestRows runs all rows, in JSON and in CBOR.
func TestRows(t *testing.T) {
	unfit := regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)
	for _, table := range tables() {
		for _, row := range table.rows {
			for _, f := range formats {
				t.Run(row.name+"/"+f.name, func(t *testing.T) {
					if !table.serial {
						t.Parallel()
					}
					// Of at most 128 letters, digits, "_", "." and "-".
					name := strings.Trim(unfit.ReplaceAllString(row.name, "-"), "-")
					row.test(newCaller(t, table.node, f, name[:min(len(name), 100)]+"."+f.name))
				})
			}
		}
	}
}
