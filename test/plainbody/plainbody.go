// Package plainbody makes the AWS SDK for Go's HTTP clients fit for tests that
// don't retry. It is for tests only.
//
// The SDK (smithy-go 1.28) hands net/http a body with a WriteTo that answers EOF
// once the SDK has closed it, as it does when the answer's header comes before
// net/http has looked for a rest of the body. net/http takes that for a broken
// connection and closes it, and whoever still reads a large answer fails with
// "use of closed network connection". Retries hide it.
package plainbody

import (
	"io"
	"net/http"
)

// Doer is what the SDK needs of an HTTP client.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Client gives the client without WriteTo in the bodies that it sends.
func Client(c Doer) Doer { return client{c} }

type client struct{ Doer }

func (c client) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.Doer.Do(r)
}
