# SPDX-License-Identifier: Apache-2.0
"""Wordings of messages that ask for no call, with the replies: greetings, questions about tools, refusals."""

from __future__ import annotations

from recipes.vitron_tiny.wordings.forms import Family, family

__all__ = ["CHAT", "TAGS"]

CHAT: dict[str, tuple[Family, str]] = {
    "greeting": (
        family(
            fixed="""
            (hello|hi|hey|good morning|good evening|good afternoon|greetings|howdy|yo|hiya)
            (hello|hi|hey) (there|vitron|again|you|friend|everyone)
            good (morning|evening|afternoon) (vitron|to you)
            (hello|hi|hey), how are you
            how are you (doing |)(today|)
            (good to see you|nice to meet you|nice to see you|hello hello|are you there|anybody there)
            (hello|hi), I'm new here
            (hello|hi), I am back
            """,
            held_out="""
            hi there, vitron
            good day
            hello from me
            hey, what's up
            how do you do
            a very good morning
            hello my friend
            hi, nice to meet you
            how is it going
            good to have you here
            ahoy
            """,
        ),
        "Hello! What can I do for you?",
    ),
    "thanks": (
        family(
            fixed="""
            (thanks|thank you|thx|ty|cheers|many thanks)
            (thanks|thank you) (a lot|so much|very much|again|for that|for your help|vitron)
            (ok|okay|great|perfect|cool|good), (thanks|thank you)
            (great|perfect|awesome|excellent|wonderful|amazing|brilliant|super|cool|good)
            (well done|good job|great job|nice work|good work|nicely done)
            that (is|was) (great|good|perfect|helpful|all right|exactly what I wanted)
            that's (great|perfect|it|right|what I meant|exactly right)
            """,
            held_out="""
            thanks a million
            great work
            I appreciate it
            much appreciated
            that helped me a lot
            lovely, thank you
            you did that well
            thank you kindly
            fantastic job
            very good, thanks
            bravo
            """,
        ),
        "You are welcome.",
    ),
    "bye": (
        family(
            fixed="""
            (bye|goodbye|good bye|bye bye|bye for now|cya|see you|see ya|farewell|so long)
            (see you|bye, see you|ok, see you) (later|soon|tomorrow|around|next time)
            (that is all|that's all|that was all|that will be all)(| for today| for now|, bye)
            (I have to go|I must go|I am leaving|I'm off|I'm leaving|I'm going now|I have to leave)
            (until tomorrow|until next time|we are done|we're done|I'm done for today|talk to you later)
            (ok|okay|thanks), (bye|goodbye)
            """,
            held_out="""
            I am done
            good night
            catch you later
            that's it from me
            take care
            time for me to go
            have a nice day, bye
            signing off
            nothing else, goodbye
            let's stop for today, bye
            """,
        ),
        "Goodbye!",
    ),
    "able": (
        family(
            fixed="""
            what can you do
            what can you do (for me|here|with images|with a photo|with videos)
            what (else can you do|are you able to do|do you do|are you good at|are you for|can I ask you)
            what can I (ask|do|do here|do with you|use you for|ask you to do)
            how can you help(| me)
            (tell me|show me|explain|list) what you can do
            (help|help me|I need help|how does this work|how do I use you|how do I use this)
            what (tools|features|skills|functions|commands) do you (have|offer)
            (what tools can you use|which tools are there|which tasks can you do|what are your features)
            what kind of (things|edits) can you do
            """,
            held_out="""
            tell me more about what you can do
            what do you know
            give me an overview of your abilities
            what is possible with you
            how could you be of use to me
            which things are you capable of
            do you have a list of features
            what are my options
            what's in your toolbox
            I don't know what to ask you
            how can I make use of you
            """,
        ),
        "I can describe, segment, edit and generate images and videos.",
    ),
    "who": (
        family(
            fixed="""
            (who|what) are you
            who are you (really|exactly)
            what (is your name|are you called)
            what's your name
            (tell me|say) (who you are|your name|what you are)
            are you (a robot|a model|an AI|a bot|human|a human|real|a machine|a chatbot|alive|vitron)
            (do you have a name|who is this|who made you|who am I talking to|what am I talking to)
            (what model are you|what kind of model are you|which model is this|are you a language model)
            (introduce yourself|tell me about yourself|what should I call you)
            are you (ChatGPT|GPT|intelligent|a computer|someone)
            (how old are you|where are you from|how big are you)
            """,
            held_out="""
            what might you be
            are you a person
            by what name do you go
            whom do I speak with
            is there a human behind this
            what sort of AI are you
            may I know your name
            give me your name
            am I talking to a person
            describe yourself
            """,
        ),
        "I am Vitron, a small vision language model.",
    ),
    "may": (
        family(
            fixed="""
            (can|could) you (edit|segment|change|sharpen|generate|draw|enlarge) (images|pictures|photos)
            (can|do) you (edit|make|understand|generate) (videos|clips)
            (can|could) you (segment|track|remove|recolour|move) (things|objects)
            are you able to (edit images|segment things|make videos|track objects|remove objects)
            do you (draw|edit|make|segment) (pictures|images)
            (is it possible to|can I ask you to) (edit images|remove objects|make videos|draw something)
            can you (see images|see my photo|watch videos|change colours|change colors)
            do you know how to (segment|edit a photo|track an object|draw|remove noise)
            """,
            held_out="""
            are you able to edit pictures
            could you ever track a moving object
            is editing photos something you do
            would you know how to make a video
            does drawing work with you
            are you capable of removing objects
            can images be enlarged with you
            do you support video editing
            is there a way to recolour things
            could you possibly segment images
            may I ask you for a picture
            """,
        ),
        "Yes. Tell me what to do, and with which object.",
    ),
    "how": (
        family(
            fixed="""
            how do you (segment|edit|draw|track|make|sharpen|remove) (images|things|an image|a video|objects)
            how does (segmentation|editing|tracking|drawing|removing|recolouring|segmenting) work
            how (do|did) you do (that|this|it)
            how do you (do this|work|make a picture|make a video|remove things|know where it is)
            (what tool did you use|which tool did you use|what tool is that|what happens when you edit)
            (explain|tell me) how (segmentation|editing|tracking) works
            how (would|do) you (segment|remove|find) (a star|a circle|the background)
            (what is|what's) (segmentation|a mask|tracking|image editing|a segmentation mask)
            what does (segment|segmenting|upscaling|denoising) mean
            """,
            held_out="""
            how do you track a thing
            how does drawing work with you
            by what means do you edit a photo
            in what way do you remove an object
            what goes on when you segment
            what is the tool behind your edits
            can you explain how you find the pixels
            which method do you use to track
            how is a mask made
            how come you can draw
            what makes the editing work
            """,
        ),
        "I call a tool that does it.",
    ),
    "not": (
        family(
            fixed="""
            (don't|do not|please don't) (segment|remove|edit|change|draw|delete|mark|recolour) anything
            (don't|do not|please don't) (change|edit|touch|crop) (it|the image|the picture|this photo)
            (don't|do not|please don't) (remove|delete|segment|move|mark) the (circle|star|red square)
            (don't|do not) (make|paint|turn) it (red|blue|bigger)
            (stop|wait|hold on|not now|never mind|nevermind|forget it|cancel|cancel that|nothing)
            (leave it|leave it alone|leave it as it is|leave the image as it is|keep it as it is)
            (please do nothing|do nothing|no more edits|nothing now|nothing for now|no more changes)
            (stop it|stop here|stop now|stop that|no need|no thanks|no, thank you|not yet)
            you (don't|do not) (need to|have to) (do|change|remove) anything
            I (don't|do not) want (any changes|any edits|you to change anything|you to remove anything)
            """,
            held_out="""
            do not draw a thing
            leave the picture alone
            keep your hands off the image
            let's leave everything as is
            no edits please
            hands off
            I'd rather you did nothing
            hold it for a moment
            there is no need to change the photo
            don't make any changes
            skip that
            please refrain from editing
            """,
        ),
        "All right, I will not change anything.",
    ),
    "nice": (
        family(
            fixed="""
            (nice|lovely|beautiful|pretty|cool) (image|picture|photo|video|colours|colors)
            I (like|love) (it|this|this image|this photo|this picture|the picture|the result|the colours)
            (the star|the circle|the background|your work) (is|looks) (pretty|nice|great|lovely)
            what a (nice|lovely|beautiful|cool) (image|picture|photo|video)
            (this|it|that) looks (nice|good|great|beautiful|better|cool)
            (how nice|nice one|so pretty|wow|looks good|looks great|I'm impressed|not bad)
            """,
            held_out="""
            I quite like this picture
            this is nice
            that's a pretty one
            it came out well
            what a wonderful view
            I am happy with it
            the photo is gorgeous
            looks really neat
            I think it is beautiful
            such a charming image
            """,
        ),
        "I am glad you like it.",
    ),
    "dislike": (
        family(
            fixed="""
            I (don't|do not) like (it|this|that|this image|the result|the picture)
            (this|it|that) (is|looks) (bad|ugly|wrong|terrible|awful|strange|weird|odd)
            (that's|that is|this is) (wrong|not right|not good|not what I wanted|not what I meant|incorrect)
            (wrong|no|nope|bad|that's bad|you got it wrong|you made a mistake|that didn't work|it didn't work)
            (what a bad picture|what an ugly image|I hate it|not good|not great)
            """,
            held_out="""
            this is no good
            I'm not happy with that
            that's a failure
            you messed up
            it's not how I imagined it
            I expected something better
            what is this rubbish
            I find it ugly
            this went wrong
            you did not get that right
            """,
        ),
        "I am sorry. Tell me what you would like instead.",
    ),
    "sure": (
        family(
            fixed="""
            are you sure
            are you (really |quite |absolutely |)(sure|certain) (about that|about it|of that|it is right)
            (is|was) that (right|correct|true|really true|really right)
            (really|really now|are you certain|is that so|do you mean it|are you kidding)
            (how sure|how certain|how confident) are you
            (can I|can we|should I) (trust you|trust that|rely on that|believe you)
            (do you ever make mistakes|could you be wrong|can you be wrong|you could be wrong)
            (are you guessing|is this a guess|I doubt it|I don't believe you|I'm not sure about that)
            """,
            held_out="""
            you are sure of it
            is there no doubt
            could that be a mistake
            how do you know that is right
            are you positive
            would you bet on it
            might you be wrong
            is this for real
            I have my doubts
            how reliable is that
            """,
        ),
        "I can be wrong. Please check the result.",
    ),
    "did": (
        family(
            fixed="""
            what did you (do|just do|do there|change|just change|do just now|do before)
            what (have you|has been) (done|changed)
            what (was the last thing you did|was your last step|was the last edit|was the last change)
            (tell me|explain|say) what you (did|just did|changed|have done)
            (did you|have you) (do|done|change|changed) (something|anything)
            (what just happened|what happened|what happened here|what changed|what is different now)
            """,
            held_out="""
            what have you been doing
            what was it that you did
            remind me of what you did
            what is new in this image
            which step came last
            did something change
            can you recap what happened
            what did you alter
            I missed what you did
            report your last action
            """,
        ),
        "I did what you asked for in your last message.",
    ),
    "unknown": (
        family(
            fixed="""
            (what is|what's) the (weather|weather like|time|date|capital of France|news)
            (who won|who is winning) the (game|match|election)
            (what time|what day|what year) is it
            (what is|what's) (two and two|two plus two|5 times 7|for dinner|love)
            (tell me|tell us) (a joke|a story|a secret|something funny)
            write (a poem|a letter|an email|some code|a song|a story)
            (how far is the moon|who is the president|who wrote this book|how tall is the tower)
            (translate this|translate hello into French|sing a song|play some music|set an alarm)
            (what should I cook|what should I wear|where do you live|do you like pizza|what is a cat)
            """,
            held_out="""
            what month is it
            who is the king
            give me a recipe for soup
            how do I get to the station
            what is ten minus four
            when does the train leave
            recommend a good book
            what's the meaning of life
            can you order a taxi
            which team is the best
            how deep is the sea
            """,
        ),
        "I only know about images and videos.",
    ),
}
"""Wordings and the one reply of each kind."""
TAGS: Family = family(
    requests="""
    (explain|explain to me|describe) {tag}
    tell me (about|what you know about) {tag}
    tell me what {tag} (means|is|does)
    """,
    questions="""
    what does {tag} (mean|do|stand for)
    what (is|are) {tag}
    what's {tag}
    is {tag} a (tag|command|word|code)
    what is the (use|purpose) of {tag}
    what happens (with|when you write) {tag}
    (why is there|why do I see) {tag} in (your|the) (text|answer|reply)
    (have you seen|do you know|do you use) {tag}
    where does {tag} come from
    who writes {tag}
    """,
    statements="""
    (do not|don't|never) (write|say|print|use) {tag}
    I (found|saw|read) {tag} in (a|the|this) (text|file|log)
    (somebody|someone|a friend) (wrote|typed|sent me) {tag}
    (the text|the page|it) says {tag}
    I don't understand {tag}
    """,
    held_out="""
    why do you write {tag}
    what is the meaning of {tag}
    {tag} is what
    how should I read {tag}
    my file contains {tag}
    can I ignore {tag}
    please avoid {tag} in your text
    it printed {tag}, what is that
    is it normal to see {tag}
    for what do you need {tag}
    there was {tag} on my screen
    """,
)
