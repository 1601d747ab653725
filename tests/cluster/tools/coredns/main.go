// Command coredns answers the test cluster's name questions. It is CoreDNS with
// the plugins that the cluster's Corefile uses and no others, which spares the
// first build several minutes and the node some memory.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// A question passes the plugins in this order, whatever the order in the
// Corefile; a Corefile that names another plugin is refused. The template comes
// last, so that it answers only what is no name of the cluster.
func init() {
	dnsserver.Directives = []string{"ready", "health", "errors", "kubernetes", "template"}
}

func main() { coremain.Run() }
