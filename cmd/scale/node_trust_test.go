package main

import (
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
)

// TestNodeTrust: TLS that cannot come about is said at once, with the flag that helps.
func TestNodeTrust(t *testing.T) {
	own, other := newCertifier(t), newCertifier(t)
	dir := t.TempDir()
	pair := func(c *certifier, name string) (crt, key string) {
		cert := c.issue(t)
		der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return writePEM(t, filepath.Join(dir, name+".crt"), "CERTIFICATE", cert.Certificate[0]), writePEM(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", der)
	}
	nodeCrt, nodeKey := pair(own, "node")
	mineCrt, mineKey := pair(own, "mine")
	theirCrt, theirKey := pair(other, "their")
	ownCA := writePEM(t, filepath.Join(dir, "own"), "CERTIFICATE", own.cert.Raw)
	otherCA := writePEM(t, filepath.Join(dir, "other"), "CERTIFICATE", other.cert.Raw)
	p := startNode(t, newNodeStore(t), "--tls-cert", nodeCrt, "--tls-key", nodeKey, "--client-ca", ownCA)
	plain := startNode(t, newNodeStore(t))
	mine := []string{"--node-cert", mineCrt, "--node-key", mineKey}
	for name, c := range map[string]struct {
		node *nodeProcess
		args []string
		code int
		hint string
	}{
		"all as it should be":           {p, append(mine, "--node-ca", ownCA), 0, ""},
		"the node's authority unknown":  {p, append(mine, "--node-ca", otherCA), exitFailed, "--node-ca FILE"},
		"another name":                  {p, append(mine, "--node-ca", ownCA, "--node-name", "other.example"), exitFailed, "--node-name NAME"},
		"a client of another authority": {p, []string{"--node-ca", ownCA, "--node-cert", theirCrt, "--node-key", theirKey}, exitFailed, "--node-cert FILE"},
		"a client without certificate":  {p, []string{"--node-ca", ownCA}, exitFailed, "--node-cert FILE"},
		"a node without TLS":            {plain, []string{"--node-ca", ownCA}, exitFailed, "leave --node-ca"},
	} {
		_, stderr, code := runVerb(t, append([]string{"ls", "--node", c.node.grpc}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.hint) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", name, code, c.code, c.hint, stderr)
		}
		if strings.Contains(stderr, "repeated") {
			t.Errorf("%s: tried again: %s", name, stderr)
		}
	}
}
