package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

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
	wait                                    time.Duration
}

func (f *nodeFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.address, "node", "", "`HOST:PORT` of a node to work on instead of a store")
	fl.StringVar(&f.tokenFile, "token-file", "", "`file` with the token for the node; default is the text of $SCALE_TOKEN")
	fl.StringVar(&f.ca, "node-ca", "", "PEM `file` with the authorities of the node's certificate, if not the system's")
	fl.StringVar(&f.name, "node-name", "", "`name` that the node's certificate is made out to, if not its HOST")
	fl.StringVar(&f.cert, "node-cert", "", "PEM `file` with the certificate to show to the node")
	fl.StringVar(&f.key, "node-key", "", "PEM `file` with the private key of --node-cert")
	fl.BoolVar(&f.plaintext, "node-insecure-no-tls", false, "talk to a node on another machine without TLS, and without a token")
	fl.DurationVar(&f.wait, "node-wait", time.Minute, "how long to wait for a node that is stopping, or has gone in the middle: it may be starting again")
}

// check refuses flags that do not go together.
func (a *app) checkNode() error {
	f := &a.node
	switch {
	case f.wait < 0:
		return usagef("--node-wait is negative")
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
		FileCache: store.FileCache(fileCache()), Patience: max(f.wait, 1),
	}
	if o.TokenFile == "" {
		o.Token = os.Getenv("SCALE_TOKEN")
	}
	address := f.address
	if address == "" {
		address = os.Getenv("SCALE_NODE")
	}
	c, err := grpcapi.Dial(cmd.Context(), address, o)
	if err != nil {
		return nil, trustHint(err)
	}
	return c, nil
}

// trustHint adds to an error of TLS which flag helps, where one does.
func trustHint(err error) error {
	var untrusted *grpcapi.TrustError
	if !errors.As(err, &untrusted) {
		return err
	}
	hint := ""
	var notTLS tls.RecordHeaderError
	var otherName x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var noRoots x509.SystemRootsError
	var invalid x509.CertificateInvalidError
	switch {
	case untrusted.Refused:
		hint = "--node-cert FILE and --node-key FILE show it one that an authority of its --client-ca has signed"
	case errors.As(err, &notTLS):
		hint = "if it does without TLS, leave --node-ca, --node-name and --node-cert out; on another machine --node-insecure-no-tls does so too"
	case errors.As(err, &otherName):
		hint = "if it is the right node, --node-name NAME says what its certificate is made out to"
	case errors.As(err, &unknown), errors.As(err, &noRoots):
		hint = "--node-ca FILE names the authorities to trust"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		hint = "the node needs a new certificate, or this machine the right time"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, hint)
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
