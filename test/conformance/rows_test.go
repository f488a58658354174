package conformance

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row is a row of the reference, and what must hold of it. A name that ends in
// ": NUMBER" is one of several tests of a row.
type row struct {
	name string
	test func(*caller)
}

// table is rows that run on one kind of node.
type table struct {
	node   *node
	serial bool    // one row at a time
	only   *format // nil: in both
	rows   []row
}

func tables() []table {
	return []table{
		{node: plain, rows: slices.Concat(malformedRows(), wireRows, errorRows, modelRows(), addressRows, goneRows, streamRows,
			shardRows, scalingRows(), tagRows, recordRows, iteratorRows, consumerRows, policyRows, settingsRows, subscribeRows)},
		{node: plain, only: inJSON, rows: slices.Concat(jsonRows, typeRows())},
		{node: plain, only: inCBOR, rows: cborRows},
		{node: slow, rows: slices.Concat(stateRows, slowConsumerRows, slowSubscribeRows, transitionRows)},
		{node: secure, rows: transportRows},
		{node: metered, rows: meteredRows},
		{node: limited, rows: limitedRows},
		{node: withCommitment, rows: withCommitmentRows},
		{node: guarded, rows: signatureRows()},
		{node: account, serial: true, rows: slices.Concat(accountRows, commitmentRows)},
		{node: crowded, serial: true, rows: crowdedRows},
		{node: keyed, serial: true, rows: encryptionRows},
		{node: clocked, serial: true, rows: clockRows},
	}
}

// TestRows runs all rows, in JSON and in CBOR: TestRows/ROW/WAY, and those that
// run one by one as TestRows/NODE/ROW/WAY.
func TestRows(t *testing.T) {
	for _, table := range tables() {
		if elsewhere != "" && table.node != plain {
			continue // it needs a node of its own
		}
		if !table.serial {
			table.run(t)
			continue
		}
		t.Run(table.node.name, func(t *testing.T) {
			t.Parallel()
			table.run(t)
		})
	}
}

var unfit = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

func (t table) run(parent *testing.T) {
	for _, row := range t.rows {
		for _, w := range ways {
			if t.only != nil && t.only != w.format {
				continue
			}
			parent.Run(row.name+"/"+w.name, func(one *testing.T) {
				if !t.serial {
					one.Parallel()
				}
				// Of at most 128 letters, digits, "_", "." and "-".
				name := strings.Trim(unfit.ReplaceAllString(row.name, "-"), "-")
				row.test(newCaller(one, t.node, w, name[:min(len(name), 100)]+"."+w.name))
			})
		}
	}
}

// TestEveryRow holds the list of rows against the tables: none is missing
// silently, and none is tested that the list does not have.
func TestEveryRow(t *testing.T) {
	number := regexp.MustCompile(`: \d+$`)
	tested := map[string]bool{}
	for _, table := range tables() {
		for _, row := range table.rows {
			name := number.ReplaceAllString(row.name, "")
			if _, listed := reference[name]; !listed {
				t.Errorf("%s is tested, and not on the list", name)
			}
			tested[name] = true
		}
	}
	exist := goTests(t)
	for name, where := range reference {
		for _, test := range regexp.MustCompile(`Test\w+`).FindAllString(where, -1) {
			if !exist[test] {
				t.Errorf("%s is said to be tested by %s, which there is not", name, test)
			}
		}
		switch {
		case where == "" && !tested[name]:
			t.Errorf("%s is not tested", name)
		case where != "" && tested[name]:
			t.Errorf("%s is tested here, and said to be tested or waived elsewhere", name)
		}
	}
}

// goTests gives the names of all tests of the repository.
func goTests(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || len(d.Name()) > 2 && d.Name()[0] == '.'):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, found := range function.FindAllSubmatch(text, -1) {
			names[string(found[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
