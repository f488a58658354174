package kinesis

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

// draw fills v, of that shape, at random: members absent or there, values that
// meet their constraints and values that don't.
func draw(t *rapid.T, s *shape, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		if rapid.Bool().Draw(t, "absent") {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch s.kind {
	case kindString:
		values := []*rapid.Generator[string]{rapid.String(), rapid.StringMatching(`[a-zA-Z0-9_.-]{0,5}`), rapid.StringMatching(`[0-9]{1,3}`)}
		if s.enum != nil {
			values = append(values, rapid.SampledFrom(s.enum))
		}
		v.SetString(rapid.OneOf(values...).Draw(t, s.name))
	case kindInteger:
		v.SetInt(int64(rapid.Int32().Draw(t, s.name)))
	case kindLong:
		v.SetInt(rapid.Int64().Draw(t, s.name))
	case kindTimestamp:
		v.SetInt(rapid.Int64().Draw(t, s.name))
	case kindBoolean:
		v.SetBool(rapid.Bool().Draw(t, s.name))
	case kindBlob:
		if rapid.Bool().Draw(t, "there") {
			v.SetBytes(append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, s.name)...))
		}
	case kindList:
		n := rapid.IntRange(-1, 4).Draw(t, "length")
		if n < 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			draw(t, s.elem, v.Index(i))
		}
	case kindMap:
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.ValueOf(rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, s.name)))
		}
	case kindStructure:
		for i := range s.members {
			draw(t, s.members[i].shape, v.Field(s.members[i].field))
		}
	}
}

// TestInputsSurvive: whatever an input holds, both formats carry it, and it is
// judged alike.
func TestInputsSurvive(t *testing.T) {
	for i := range operations {
		o := &operations[i]
		t.Run(string(o.op), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				in := reflect.New(o.input.goType)
				draw(t, o.input, in.Elem())
				// Required lists that are absent would be written as empty ones.
				fillRequired(o.input, in.Elem())
				want := in.Interface()
				for _, f := range []Format{JSON, CBOR} {
					body := AppendOutput(nil, f, want)
					got, err := Decode(o.op, f, body)
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Fatalf("%s %q:\n got %+v, %v\nwant %+v", f.ContentType(), body, got, err, want)
					}
					if a, b := Validate(got), Validate(want); !reflect.DeepEqual(a, b) {
						t.Fatalf("judged %v and %v", a, b)
					}
					oracle(t, f, body)
				}
			})
		})
	}
}

// TestOutputsSurvive does the same for all other shapes.
func TestOutputsSurvive(t *testing.T) {
	for _, s := range structures {
		t.Run(s.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				out := reflect.New(s.goType)
				draw(t, s, out.Elem())
				fillRequired(s, out.Elem())
				for _, f := range []Format{JSON, CBOR} {
					body := AppendOutput(nil, f, out.Interface())
					got := reflect.New(s.goType)
					if err := decode(s, f, body, got.Elem()); err != nil || !reflect.DeepEqual(got.Interface(), out.Interface()) {
						t.Fatalf("%s %q:\n got %+v, %v\nwant %+v", f.ContentType(), body, got, err, out)
					}
					oracle(t, f, body)
				}
			})
		})
	}
}

// fillRequired gives required lists, maps and blobs that are absent their empty
// value, which is what they are written as.
func fillRequired(s *shape, v reflect.Value) {
	for i := range s.members {
		m := &s.members[i]
		field := v.Field(m.field)
		if m.required && field.Kind() == reflect.Slice && field.IsNil() {
			field.Set(reflect.MakeSlice(field.Type(), 0, 0))
		}
		if m.required && field.Kind() == reflect.Map && field.IsNil() {
			field.Set(reflect.MakeMap(field.Type()))
		}
		switch {
		case m.shape.kind == kindStructure && field.Kind() == reflect.Pointer && !field.IsNil():
			fillRequired(m.shape, field.Elem())
		case m.shape.kind == kindList && m.shape.elem.kind == kindStructure:
			for j := range field.Len() {
				fillRequired(m.shape.elem, field.Index(j))
			}
		}
	}
}

// oracle has independent implementations read a body.
func oracle(t *rapid.T, f Format, body []byte) {
	if f == JSON {
		if !json.Valid(body) {
			t.Fatalf("no JSON: %q", body)
		}
	} else if err := cbor.Wellformed(body); err != nil {
		t.Fatalf("no CBOR: %x: %v", body, err)
	}
}
