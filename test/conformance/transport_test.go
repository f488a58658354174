package conformance

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

// Section 2.1: how connections begin where the node speaks TLS. All else runs
// over HTTP/1.1 and over HTTP/2 with prior knowledge.

var secure = &node{name: "secure", args: []string{"--transition-delay", "0s", "--tls"}}

var anyCertificate = &tls.Config{InsecureSkipVerify: true} // the test's own node made it

// over makes the row's calls with another client.
func (c *caller) over(tr *http.Transport, url string) {
	c.http, c.url = &http.Client{Transport: tr}, url
	c.Cleanup(tr.CloseIdleConnections)
}

// everything makes a call of each kind, a stream of events among them.
func (c *caller) everything(major int) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), http.MethodGet, c.url, nil)
	if err != nil {
		c.Fatal(err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != major {
		c.Errorf("HTTP/%d, not HTTP/%d", resp.ProtoMajor, major)
	}
	c.create(1)
	e := c.subscribe(c.consumer("c"), "0", "LATEST", nil)
	c.put("k", "x")
	if got, _ := e.records(1); len(got) != 1 || got[0] != "x" {
		c.Errorf("%q", got)
	}
}

func protocols(set func(*http.Protocols)) *http.Protocols {
	p := new(http.Protocols)
	set(p)
	return p
}

var transportRows = []row{
	// As Java's SDK did before 2025.
	{"2.1 transport/HTTP/2 over TLS without ALPN", func(c *caller) {
		c.over(&http.Transport{
			Protocols: protocols(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }),
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return (&tls.Dialer{Config: anyCertificate}).DialContext(ctx, network, address)
			},
		}, "http"+c.url[len("https"):])
		c.everything(2)
	}},
	{"2.1 transport/HTTP/2 over TLS by ALPN", func(c *caller) {
		c.over(&http.Transport{Protocols: protocols(func(p *http.Protocols) { p.SetHTTP2(true) }), TLSClientConfig: anyCertificate.Clone()}, c.url)
		c.everything(2)
	}},
	{"2.1 transport/HTTP/1.1 over TLS", func(c *caller) {
		c.over(&http.Transport{Protocols: protocols(func(p *http.Protocols) { p.SetHTTP1(true) }), TLSClientConfig: anyCertificate.Clone()}, c.url)
		c.everything(1)
	}},
}
