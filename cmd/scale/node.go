package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

// nodeFlags say which node a verb works on, instead of a store on this machine.
type nodeFlags struct {
	address, tokenFile, ca, name, cert, key string
	plaintext                               bool
}

func (f *nodeFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.address, "node", "", "`HOST:PORT` of a node to work on instead of a store")
	fl.StringVar(&f.tokenFile, "token-file", "", "`file` with the token for the node; default is the text of $SCALE_TOKEN")
	fl.StringVar(&f.ca, "node-ca", "", "PEM `file` with the authorities of the node's certificate, if not the system's")
	fl.StringVar(&f.name, "node-name", "", "`name` that the node's certificate is made out to, if not its HOST")
	fl.StringVar(&f.cert, "node-cert", "", "PEM `file` with the certificate to show to the node")
	fl.StringVar(&f.key, "node-key", "", "PEM `file` with the private key of --node-cert")
	fl.BoolVar(&f.plaintext, "node-insecure-no-tls", false, "talk to a node on another machine without TLS, and without a token")
}

// check refuses flags that do not go together.
func (a *app) checkNode() error {
	f := &a.node
	switch {
	case f.address != "" && a.store != "":
		return usagef("--node and --store: pass one of them")
	case !a.remote() && (f.tokenFile != "" || f.ca != "" || f.name != "" || f.cert != "" || f.key != "" || f.plaintext):
		return usagef("--token-file and --node-… go with --node")
	}
	return nil
}

// remote reports whether the verb works on a node: on that of --node, or if there is no
// --store either, of $SCALE_NODE.
func (a *app) remote() bool {
	return a.node.address != "" || a.store == "" && os.Getenv("SCALE_NODE") != ""
}

// dial connects to the node.
func (a *app) dial(cmd *cobra.Command, level compress.Level) (*grpcapi.Client, error) {
	f := &a.node
	o := grpcapi.DialOptions{
		TokenFile: f.tokenFile, CACert: f.ca, ServerName: f.name, ClientCert: f.cert, ClientKey: f.key, Plaintext: f.plaintext,
		Level: level, TempDir: tempDir(), UserAgent: "scale/" + strings.ReplaceAll(buildVersion(), " ", "-"), Logger: a.nodeLog(),
		FileCache: store.FileCache(fileCache()),
	}
	if o.TokenFile == "" {
		o.Token = os.Getenv("SCALE_TOKEN")
	}
	address := f.address
	if address == "" {
		address = os.Getenv("SCALE_NODE")
	}
	return grpcapi.Dial(cmd.Context(), address, o)
}

// nodeLog tells people what the client has to say: that it repeats a call.
func (a *app) nodeLog() *slog.Logger { return slog.New(noteHandler{a}) }

// A noteHandler prints warnings as notes.
type noteHandler struct{ a *app }

func (noteHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h noteHandler) Handle(_ context.Context, r slog.Record) error {
	text := "scale: " + r.Message
	r.Attrs(func(attr slog.Attr) bool {
		text += fmt.Sprintf("; %s: %v", attr.Key, attr.Value)
		return true
	})
	h.a.note("%s", text)
	return nil
}

func (h noteHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h noteHandler) WithGroup(string) slog.Handler      { return h }
