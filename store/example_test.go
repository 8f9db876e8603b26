package store_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

// A program embeds the engine: it makes a store, puts a stream into it, reads a
// range back, and hands out a proof that anyone checks with the log's key alone.
func Example() {
	ctx := context.Background()
	tmp, err := os.MkdirTemp("", "scale-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "store")
	if err := store.Init(ctx, dir, store.InitOptions{Origin: "example.org/log"}); err != nil {
		log.Fatal(err)
	}
	s, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	in := []store.Input{{Name: "greeting", Reader: strings.NewReader("hello, ledger\n")}}
	res, err := s.Put(ctx, in, store.PutOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("entry", res[0].Entry, "of", res[0].TreeSize, res[0].CID)

	o, err := s.Resolve(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := s.Get(ctx, o, &store.Range{From: 7, To: store.ToEnd}, os.Stdout); err != nil {
		log.Fatal(err)
	}

	p, err := s.Prove(ctx, o, store.ProveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	trusted, err := proof.TrustKey(s.VerifierKey())
	if err != nil {
		log.Fatal(err)
	}
	v, err := p.Verify(proof.Trust{Policy: trusted})
	if err != nil {
		log.Fatal(err)
	}
	profile, err := dag.LookupProfile(v.Entry.Profile)
	if err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"hello, ledger\n", "hello, forger\n"} {
		f, err := dag.HashFile(ctx, profile, strings.NewReader(text), nil, dag.Attr{Mode: dag.DefaultFileMode})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%q proven: %t\n", text, v.CheckFile(f) == nil)
	}
	// Output:
	// entry 1 of 2 bafkreihpacx7zxffvudyigzons3524n6qqw5xkicp6r2keznlkp4tnkgqm
	// ledger
	// "hello, ledger\n" proven: true
	// "hello, forger\n" proven: false
}
