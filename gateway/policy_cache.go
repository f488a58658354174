package gateway

import (
	"sync"

	"shardstream/gateway/policy"
)

// policyCache keeps policies as they were read. They come from the metadata, so
// that there are no more than streams and consumers, and those that were replaced.
type policyCache struct {
	damaged func(text string, err error)

	mu   sync.Mutex // protects docs
	docs map[string]*policy.Document
}

const maxPolicies = 10_000

// locked is what stands for a policy that cannot be read: it may be a Deny, so it
// denies all but what mends it.
var locked = func() *policy.Document {
	d, err := policy.Parse(`{"Statement":{"Effect":"Deny","Principal":"*","Resource":"*",
		"NotAction":["kinesis:GetResourcePolicy","kinesis:PutResourcePolicy","kinesis:DeleteResourcePolicy"]}}`)
	if err != nil {
		panic(err)
	}
	return d
}()

func (p *policyCache) of(text string) *policy.Document {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.docs[text]
	if d == nil {
		var err error
		if d, err = policy.Parse(text); err != nil {
			d = locked
			p.damaged(text, err)
		}
		if len(p.docs) >= maxPolicies || p.docs == nil {
			p.docs = make(map[string]*policy.Document)
		}
		p.docs[text] = d
	}
	return d
}
