// Package kinesis is the Kinesis Data Streams API as data: the shapes of its 39
// operations, their constraints, the texts of its errors, and the JSON and CBOR
// forms that travel. It turns a body into a checked value and a value into a
// body, and nothing else: it knows neither HTTP nor streams that exist.
//
// The types and shape descriptors are generated (tools/kinesisgen); one small
// interpreter decodes, checks and encodes by them. PutRecord, PutRecords and
// GetRecords have a second way that uses no reflection and allocates nothing per
// record. The invariant between the two: whatever the quick way accepts, the
// exact way accepts with the same values; what it does not accept is judged by
// the exact way alone, so that every error text comes from one place.
package kinesis

import "reflect"

// Op is the name of an operation, as the X-Amz-Target header carries it behind
// the dot.
type Op string

// TargetPrefix is the part of the X-Amz-Target header before the dot.
const TargetPrefix = "Kinesis_20131202"

type operation struct {
	op            Op
	input, output *shape // output is nil where the answer is empty
}

var operationsByName = func() map[string]*operation {
	m := make(map[string]*operation, len(operations))
	for i := range operations {
		m[string(operations[i].op)] = &operations[i]
	}
	return m
}()

// LookupOp gives the operation of that exact name.
func LookupOp(name string) (Op, bool) {
	o := operationsByName[name]
	if o == nil {
		return "", false
	}
	return o.op, true
}

// Ops gives all operations by name.
func Ops() []Op {
	ops := make([]Op, len(operations))
	for i := range operations {
		ops[i] = operations[i].op
	}
	return ops
}

// Format is the form of a body.
type Format uint8

// The formats.
const (
	JSON Format = iota
	CBOR
)

// ContentType gives the media type of the format, as requests and answers carry it.
func (f Format) ContentType() string {
	if f == CBOR {
		return "application/x-amz-cbor-1.1"
	}
	return "application/x-amz-json-1.1"
}

// Timestamp is a time in Unix milliseconds. In JSON it travels as seconds with a
// fraction, in CBOR as tag 1 with integer milliseconds.
type Timestamp int64

// Decode reads the body of a request of that operation into a new *XInput. A
// body that is no object, or a member of the wrong type, is a
// SerializationException. Members that are unknown or null count as absent; a
// member named twice has its last value. Blobs and strings are copies.
func Decode(op Op, f Format, body []byte) (in any, err *Error) {
	o := operationsByName[string(op)]
	if o == nil {
		return nil, UnknownOperation()
	}
	v := reflect.New(o.input.goType)
	if err := decode(o.input, f, body, v.Elem()); err != nil {
		return nil, err
	}
	return v.Interface(), nil
}

// Validate checks a decoded input, a *XInput, against the constraints of its
// shape. It gives a ValidationException that lists the first ten violations.
func Validate(in any) *Error {
	v := reflect.ValueOf(in).Elem()
	return validate(shapeOf(v.Type()), v)
}

// AppendOutput appends the body of an answer: out is a *XOutput or XOutput, or
// nil for operations whose answer is empty. It also encodes any other shape.
func AppendOutput(dst []byte, f Format, out any) []byte {
	if out == nil {
		return dst
	}
	v := reflect.ValueOf(out)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if f == CBOR {
		return appendCBORValue(dst, shapeOf(v.Type()), v)
	}
	return appendJSONValue(dst, shapeOf(v.Type()), v)
}
