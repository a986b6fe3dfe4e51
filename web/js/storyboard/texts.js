/** All texts of the storyboard. */

import { textsOf } from "../texts.js";

/** Return the text called `key` with its values. */
export const text = textsOf("storyboard");
