/** The hands that the desktop's page lends to the cluster's menu: there are no documents to save, and the picture. */

import type { Hands } from "../../lab/src/actions.js";
import type { Link } from "../../lab/src/link.js";
import { sure, tell } from "./dialogs.js";
import type { Say } from "./words.js";

export function hands(link: Link, say: Say, connect: () => void, spoken: (text: string) => void): Hands {
  return {
    sure: (title, lines, label, danger, beside) => sure(say, title, lines, label, danger, beside),
    refused: text => tell(text, [], say("Close")),
    tell: spoken,
    saved: async () => true,
    reconnect: connect,
    terminal: () => {
      const { status } = link;
      const address = status?.nodes.find(node => node.rank === status.node.rank)?.terminal_url;
      if (address) {
        window.open(address, "_blank", "noopener");
      }
    },
    words: {
      whenDone: say(
        "Running programs go on after you leave. When nothing runs any more the cluster goes back; what is not saved on the desktop is lost then."
      ),
      release: say(
        "All files in work stay. Programs on the desktop, kernels and terminals end; what is not saved in them is lost."
      ),
      restart: say("What is not saved on the desktop is lost.")
    }
  };
}
